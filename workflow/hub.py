"""Fetching from a model hub by commit, into the hub's own cache; errors in one line.

`HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are read by the hub's library from the environment only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.disk import refusal
from workflow.errors import BuildError
from workflow.models import TOKENIZER, WEIGHTS
from workflow.progress import EVERY, duration, say
from workflow.recipe import load_recipe, yaml12
from workflow.recipe.model import UNPINNED
from workflow.store.files import write_atomic


def fetch(repository: str, revision: str, weights: bool) -> Path:
    """Download one commit of a hub model, or find it in the cache.

    Returns:
        The snapshot folder inside the hub's cache.

    Raises:
        BuildError: No access, no such model or commit, or no network.
    """
    from huggingface_hub import snapshot_download

    patterns = [*TOKENIZER, *(WEIGHTS if weights else ())]
    with _one_line(repository, revision):
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=patterns, tqdm_class=_progress_lines(repository)
        )
    return Path(folder)


def fetch_data(repository: str, revision: str) -> Path:
    """The same for a data set: all its files but code.

    Raises:
        BuildError: As `fetch`.
    """
    from huggingface_hub import snapshot_download

    with _one_line(repository, revision):
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            ignore_patterns=["*.py"],
            tqdm_class=_progress_lines(repository),
        )
    return Path(folder)


def _progress_lines(repository: str) -> Any:
    """A tqdm class that says a line now and then where tqdm would redraw its bar."""
    from huggingface_hub.utils import tqdm

    class Lines(tqdm):  # type: ignore[misc]
        shown = 0.0

        def display(self, *arguments: Any, **options: Any) -> None:
            now = time.monotonic()
            if self.total and (now - self.shown >= EVERY or self.n >= self.total):
                type(self).shown = now
                rate = self.format_dict["rate"]
                left = f", about {duration((self.total - self.n) / rate)} left" if rate else ""
                say(f"{repository}: {self.n:,.0f} of {self.total:,.0f} {self.unit}{left}")

    return Lines


def lock(path: Path) -> str:
    """Write the hub's newest commits, of model and data, where the recipe says `unpinned`, and no more.

    Returns:
        A line for each: what was written, or that it was pinned before.

    Raises:
        BuildError: The recipe is wrong or names nothing of the hub, or the hub does not answer.
    """
    load_recipe(path)
    text = path.read_bytes().decode()
    found = list(_revisions(yaml12.parse(text.removeprefix("\ufeff")).value, ()))
    if not found:
        raise BuildError(f"{path}: nothing in it is a hub id with a revision; there is nothing to lock")
    said = []
    for place, repository, revision in found:
        if revision != UNPINNED:
            said.append(f"{path}: {repository} is pinned already, at {revision}")
            continue
        commit = _newest(repository, data=place[0] == "dataset")
        text = _pinned(path, text, commit, place)
        write_atomic(path, text.encode(), path.stat().st_mode & 0o777)
        said.append(f"{path}: {repository} is now pinned at {commit}")
    return "\n".join(said)


def _revisions(value: Any, place: yaml12.Path) -> Iterator[tuple[yaml12.Path, str, str]]:
    """Place, repository and revision of all that a recipe takes from the hub."""
    if isinstance(value, dict):
        if value.get("revision") is not None:
            yield (*place, "revision"), str(value.get("base") or value.get("hub")), str(value["revision"])
        for key, inner in value.items():
            yield from _revisions(inner, (*place, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _revisions(inner, (*place, i))


def _newest(repository: str, data: bool) -> str:
    from huggingface_hub import HfApi

    with _one_line(repository):
        info = HfApi().dataset_info(repository) if data else HfApi().model_info(repository)
    return str(info.sha)


def _pinned(path: Path, text: str, commit: str, place: yaml12.Path = ("model", "revision")) -> str:
    """`text` with the scalar `unpinned` at `place` replaced; comments and layout stay."""
    bom = text.startswith("\ufeff")
    before = yaml12.parse(text[bom:])
    line, column = before.places[place]
    start = sum(map(len, text.splitlines(keepends=True)[: line - 1])) + column - 1
    plain = yaml12.parse(commit).value == commit  # a commit of digits alone would be a number
    changed = text[:start] + re.sub(UNPINNED, commit if plain else f"'{commit}'", text[start:], count=1)
    within = before.value
    for part in place[:-1]:
        within = within[part]
    within["revision"] = commit
    if yaml12.value_of(changed[bom:]) != before.value:
        raise BuildError(f"{path}:{line}:{column}: write the commit {commit} here yourself")
    return changed


@contextmanager
def _one_line(repository: str, revision: str = "") -> Iterator[None]:
    """Turn what the hub's library raises in the block into a BuildError; a token is never in it."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except errors.GatedRepoError:
        raise BuildError(
            f"{repository}: access is restricted (403); accept its terms on the hub and set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise BuildError(f"{repository}: the hub has no commit {revision}; run `tunemake lock`") from None
    except errors.RepositoryNotFoundError:
        raise BuildError(_unreadable(repository)) from None
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, httpx.HTTPError, OSError) as error:
        from huggingface_hub.constants import HF_HUB_CACHE

        line = refusal(error, Path(HF_HUB_CACHE)) or _unreachable(repository, revision, error)
        raise BuildError(line) from None


def _unreadable(repository: str) -> str:
    """The hub does not tell strangers a private model from one that is not there."""
    token = "your HF_TOKEN may not read it" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    return f"{repository}: not found on the hub (401/404): it does not exist, or it is private and {token}"


def _unreachable(repository: str, revision: str, error: Exception) -> str:
    """The line for everything but a clear answer of the hub's; an error's cause tells more than itself."""
    cause = error.__cause__ or error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status == 401:
        return _unreadable(repository)
    if status == 403:
        return f"{repository}: the hub refuses access (403); check HF_TOKEN and the model's terms"
    what = f"the hub answers {status}, try again" if status else "the hub cannot be reached"
    name = f"{repository}@{revision[:8]}: not in the hub's cache and " if revision else f"{repository}: "
    return f"{name}{what} ({type(cause).__name__}); fetch it once on a machine with a network"
