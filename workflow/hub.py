"""Fetching from a model hub by commit, into the hub's own cache; errors in one line."""

from __future__ import annotations

import os
from pathlib import Path

from workflow.errors import BuildError
from workflow.models import TOKENIZER, WEIGHTS


def fetch(repository: str, revision: str, weights: bool) -> Path:
    """Download one commit of a hub model, or find it in the cache.

    `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are read by the library from the environment only.

    Returns:
        The snapshot folder inside the hub's cache.

    Raises:
        BuildError: No access, no such model or commit, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    patterns = [*TOKENIZER, *(WEIGHTS if weights else ())]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except GatedRepoError:
        raise BuildError(
            f"{repository}: access is restricted (403); accept its terms on the hub and set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise BuildError(f"{repository}: the hub has no commit {revision}; run `tunemake lock`") from None
    except RepositoryNotFoundError:
        state = "it does not exist or your HF_TOKEN may not read it" if os.environ.get("HF_TOKEN") else (
            "it does not exist, or it is private and HF_TOKEN is not set"
        )
        raise BuildError(f"{repository}: not found on the hub (401/404): {state}") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise BuildError(
            f"{repository}@{revision[:8]}: not in the hub's cache and the hub cannot be reached "
            f"({type(error).__name__}); fetch it once on a machine with a network"
        ) from None
