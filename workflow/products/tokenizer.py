"""tokenizer: what rendering needs of a model, in one form: its tokenizer.json, and what is said about it.

Both are as transformers makes them of the model's own files, so that no later job need import it for that.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from workflow.chat import Chat
from workflow.errors import BuildError
from workflow.hub import fetch
from workflow.models import tokenizer_files
from workflow.store.build import Job
from workflow.store.files import read_json, remove_tree

TOKENIZER = "tokenizer.json"


def make(job: Job) -> dict[str, Any]:
    """Write `tokenizer.json` and `chat.json`.

    Raises:
        BuildError: The hub refuses, or there is no tokenizer that can be used.
    """
    files: dict[str, Path] = job.sources
    if "hub" in job.slice:
        files = tokenizer_files(fetch(job.slice["hub"], job.slice["revision"], weights=False))
    folder = job.work / "tokenizer"
    remove_tree(folder)
    folder.mkdir(parents=True)
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
    return {"tokens": write_tokenizer(folder, job.out)}


def write_tokenizer(folder: Path, out: Path) -> int:
    """Write the one form of the tokenizer in a model's folder; returns how many tokens it has.

    Raises:
        BuildError: It cannot be loaded, is no fast one, or names no stop token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing narrower for a damaged file
        raise BuildError(f"{folder}: the tokenizer cannot be loaded ({error})") from None
    if not tokenizer.is_fast:
        raise BuildError(f"{folder}: no tokenizer.json; only fast tokenizers are supported")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # limits are the recipe's
    backend.no_padding()
    backend.save(str(out / TOKENIZER), pretty=False)
    special = sorted({t.content for t in tokenizer.added_tokens_decoder.values() if t.special})
    names = {
        role: [str(token) for token in found] if isinstance(found, list) else str(found)
        for role, found in tokenizer.special_tokens_map.items()
    }
    Chat(
        template=_template(tokenizer, folder),
        names=names,
        special=special,
        stop_ids=_stop_ids(folder, tokenizer),
        pad_id=tokenizer.pad_token_id,
        begin=_begin(tokenizer),
        positions=_positions(folder),
    ).write(out)
    return len(tokenizer)


def _begin(tokenizer: Any) -> str:
    with_own = tokenizer("a")["input_ids"]
    return str(tokenizer.bos_token) if with_own[:1] == [tokenizer.bos_token_id] else ""


def _positions(folder: Path) -> int | None:
    """The first of the names under which configurations say it."""
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    found = [config.get(name) for name in ("n_positions", "max_position_embeddings", "seq_length")]
    return next((number for number in found if isinstance(number, int)), None)


def _template(tokenizer: Any, folder: Path) -> str | None:
    """The template that `apply_chat_template` takes when no other is named."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        if not tokenizer.chat_template:
            return None
        raise BuildError(f"{folder}: {error}") from None


def _stop_ids(folder: Path, tokenizer: Any) -> list[int]:
    """End-of-turn ids: of the generation config (what serving stops at), and the tokenizer's eos."""
    path = folder / "generation_config.json"
    settings = read_json(path) if path.exists() else {}
    found = settings.get("eos_token_id") if isinstance(settings, dict) else None
    ids = found if isinstance(found, list) else [found]
    stop = sorted({i for i in [*ids, tokenizer.eos_token_id] if isinstance(i, int)})
    if not stop:
        raise BuildError(f"{folder}: neither generation config nor tokenizer names a stop token")
    return stop
