"""Which files make a model folder, and the checks that keep code and pickles out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow.errors import BuildError

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
TOKENIZER = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "*.tiktoken", "chat_template.jinja", "chat_template.json"),
)
"""What rendering and stopping need; small."""

REMOTE_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code", "_attn_implementation_internal")
"""Keys that make libraries load or switch to code of the model's own (CVE-2026-4372 among others)."""


def tokenizer_files(folder: Path, scratch: bool = False) -> dict[str, Path]:
    """File name -> path of the files that a tokenizer folder is made of.

    Raises:
        BuildError: No folder, no tokenizer in it, or it asks for code of its own.
    """
    if not folder.is_dir():
        raise BuildError(f"{folder}: no such model folder; for a hub id add model.revision")
    found = _matching(folder, TOKENIZER)
    if "config.json" not in found:
        raise BuildError(f"{folder}: no config.json, this is not a model folder")
    if not {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"} & found.keys():
        raise BuildError(f"{folder}: no tokenizer (tokenizer.json or tokenizer.model) beside the model")
    refuse_remote_code(folder)
    return found


def model_files(folder: Path, scratch: bool = False) -> dict[str, Path]:
    """File name -> path of a whole model: tokenizer files and, unless from scratch, its weights.

    Raises:
        BuildError: As `tokenizer_files`, or the weights are missing or pickles.
    """
    found = tokenizer_files(folder) | _matching(folder, WEIGHTS)
    weights = [name for name in found if name.endswith(".safetensors")]
    if scratch and weights:
        raise BuildError(f"{folder}: a model from scratch must have no weights, but there is {weights[0]}")
    if not scratch and not weights:
        pickles = sorted(_matching(folder, PICKLES))
        why = f"its weights are pickles ({pickles[0]}), which run code" if pickles else "it has no weights"
        raise BuildError(f"{folder}: {why}; save the model as safetensors")
    _refuse_missing_shards(folder, found)
    return found


def _refuse_missing_shards(folder: Path, found: dict[str, Path]) -> None:
    for name in (name for name in found if name.endswith(".index.json")):
        index = _json(found[name])
        shards = index.get("weight_map", {}) if isinstance(index, dict) else {}
        if missing := sorted(set(map(str, shards.values())) - found.keys()):
            raise BuildError(f"{folder / name}: names {missing[0]}, which is missing; fetch the model again")


def refuse_remote_code(folder: Path) -> None:
    """Look for settings that make a library run code from the model's folder.

    Raises:
        BuildError: There are some.
    """
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            continue
        bad = sorted(_keys(_json(path)) & set(REMOTE_CODE_KEYS))
        if bad:
            raise BuildError(
                f"{path}: {bad[0]} asks for code of the model's own, which is never run; "
                "use a model that the libraries support, or remove the key"
            )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path}: not JSON ({error})") from None


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in _keys(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in _keys(inner)}
    return set()


def _matching(folder: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    found = {path.name: path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return dict(sorted(found.items()))
