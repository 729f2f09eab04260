"""Adapters that vLLM serves on their base, and proof that it cannot serve the bare base in their place."""

from __future__ import annotations

from pathlib import Path

from workflow.checkpoint import read_json, read_weight_file, weight_files
from workflow.errors import BuildError
from workflow.lora import changes, check_config, rank_and_scaling

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM 0.30 has room for."""
REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
"""What vLLM refuses, or does not look at: it would serve another model than was trained."""


def servable(adapter: Path, base: Path) -> int:
    """The rank of an adapter that vLLM can add to `base`; every tensor of it is known to belong there.

    vLLM leaves out what has no place in the base, so a wrong name would serve the base without a word.

    Raises:
        BuildError: It is of another kind, or has a tensor that is none of the base's.
    """
    place = adapter / "adapter_config.json"
    config = read_json(place)
    check_config(config, place)
    kinds = [what for key, what in REFUSED.items() if config.get(key)]
    if config.get("peft_type") != "LORA" or kinds or config.get("bias", "none") != "none":
        what = kinds[0] if kinds else "bias" if config.get("peft_type") == "LORA" else config.get("peft_type")
        raise BuildError(f"{place}: vLLM adds no adapter with {what}; serve this recipe alone: it is merged")
    tensors = {name: tensor for file in weight_files(base) for name, tensor in file.tensors.items()}
    pairs, _ = changes(config, read_weight_file(adapter / "adapter_model.safetensors"), tensors)
    if not pairs:
        raise BuildError(f"{adapter}: it changes no weight of {base}")
    rank, _ = rank_and_scaling(place, config, "")
    return rank


def room_for(ranks: list[int]) -> int:
    """The least of vLLM's ranks that holds all of these.

    Raises:
        BuildError: There is none.
    """
    found = next((room for room in RANKS if room >= max(ranks)), None)
    if found is None:
        raise BuildError(
            f"vLLM serves adapters up to rank {RANKS[-1]}, not {max(ranks)}; serve recipes alone"
        )
    return found
