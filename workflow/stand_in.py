"""Tiny models with random weights that stand in for large ones of the same architecture.

The configuration is the model's own where its files are at hand, else its family's default in transformers;
only its sizes are made small. So is a tokenizer of bytes, with ChatML as its chat template, taken where the
model's own is not at hand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.models import refuse_remote_code
from workflow.tiny_model import write_json, write_tokenizer

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
"""Heads are 32 wide, the least that vLLM computes on a CPU, and two share one key-value head."""
POSITIONS = 32768
"""Longest row of a family's stand-in: its tokens are bytes."""
_DERIVED = ("layer_types", "max_window_layers", "mlp_only_layers", "quantization_config", "num_labels")
"""Keys that follow from the number of layers or speak of the weights."""


def write_tokenizer_files(folder: Path, family: str) -> None:
    """Write the tokenizer of a family's stand-in, with the configuration of its model.

    Raises:
        BuildError: transformers knows no such family.
    """
    identities = write_tokenizer(folder)
    config = _default(family)
    config["max_position_embeddings"] = POSITIONS
    config |= {
        "bos_token_id": None,
        "eos_token_id": identities["<|im_end|>"],
        "pad_token_id": identities["<|endoftext|>"],
        "vocab_size": max(identities.values()) + 1,
    }
    write_json(folder / "config.json", _small(config))


def write_stand_in(folder: Path, family: str | None, files: dict[str, Path]) -> None:
    """Write a tiny model into a folder, the same bytes every time.

    Args:
        folder: Where to write.
        family: `model_type` of the model; None: the model's own files are given.
        files: Name -> path of configuration and tokenizer.

    Raises:
        BuildError: transformers does not know the family, or cannot make such a model small.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if family:
        write_tokenizer_files(folder, family)
    for name, path in files.items():
        shutil.copyfile(path, folder / name)
    path = folder / "config.json"
    write_json(path, _small(json.loads(path.read_text(encoding="utf-8"))))
    refuse_remote_code(folder)
    torch.manual_seed(0)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # float32: the few small steps of a rehearsal would be lost in the roundings of 16 bits
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # whatever a family's own code raises at sizes that it was not made for
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BuildError(f"a model of {_named(files, family)} cannot be made small: {reason}") from None
    settings = (folder / "generation_config.json").read_bytes() if _has_settings(folder) else None
    model.save_pretrained(folder)
    if settings:
        (folder / "generation_config.json").write_bytes(settings)  # with the tokens that it stops at


def _has_settings(folder: Path) -> bool:
    return (folder / "generation_config.json").exists()


def _named(files: dict[str, Path], family: str | None) -> str:
    return f"family {family}" if family else str(files["config.json"])


def _small(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a tiny model that is built alike."""
    kept = {name: value for name, value in config.items() if name not in _DERIVED}
    kept |= {name: size for name, size in SIZES.items() if kept.get(name) is not None}
    if config.get("num_key_value_heads") == config.get("num_attention_heads"):
        kept["num_key_value_heads"] = SIZES["num_attention_heads"]
    return kept | {"dtype": "float32"}


def _default(family: str) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family)
    if not isinstance(architecture, str):
        raise BuildError(f"model.base.stand_in.family: transformers knows no language model {family!r}")
    config: dict[str, Any] = CONFIG_MAPPING[family]().to_dict()
    return {**config, "architectures": [architecture]}
