"""The small files that a server is started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow.serving.template import TEMPLATE, Dialogue
from workflow.store.address import canonical

DEFAULTS = ("temperature", "top_p", "top_k", "repetition_penalty")


def write_folder(dialogue: Dialogue, folder: Path, sampling: Mapping[str, Any] | None = None) -> None:
    """Write `chat_template.jinja`, and `generation_config.json` with the tokens that end an answer.

    Args:
        dialogue: How the model was trained to be asked.
        folder: Where to write.
        sampling: The recipe's section, whose values count for requests that name none of their own.

    Raises:
        BuildError: The chat template cannot be derived.
    """
    (folder / TEMPLATE).write_text(dialogue.template(), encoding="utf-8")
    given = {name: sampling[name] for name in DEFAULTS if sampling and sampling[name] is not None}
    settings = {"eos_token_id": dialogue.chat.stop_ids, **given}
    (folder / "generation_config.json").write_bytes(canonical(settings) + b"\n")
