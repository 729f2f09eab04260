"""An adapter beside its base in vLLM: what it can serve, checked before it is started.

vLLM looks a tensor's module up by the end of its name, leaves out what it does not find, and scales all
modules by one number, whatever `alpha_pattern` and `rank_pattern` say (PEFTHelper in vLLM 0.30).
"""

from __future__ import annotations

from pathlib import Path

from workflow.checkpoint import read_json, read_weight_file, weight_files
from workflow.errors import BuildError
from workflow.lora import TIED, Config, Pair, changes, check_config

MERGED = "use `sampling.engine.weights: merged`"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's max_lora_rank may be."""


def rank_to_serve(model: Path, adapter: Path, instead: str = MERGED) -> int:
    """The `max_lora_rank` that vLLM needs for an adapter; `instead` is what to do where it has none.

    Raises:
        BuildError: It does not fit the model, or is of a kind that vLLM cannot serve or serves wrongly.
    """
    path = adapter / "adapter_config.json"
    config = read_json(path)
    check_config(config, path)
    tensors = {name: tensor for file in weight_files(model) for name, tensor in file.tensors.items()}
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise _refused(path, instead, f"{'DoRA' if config.get('use_dora') else config.get('peft_type')}")
    pairs, saved = changes(config, read_weight_file(adapter / "adapter_model.safetensors"), tensors)
    if saved:
        raise _refused(path, instead, f"whole tensors such as {min(saved)} (modules_to_save, biases)")
    if ends := sorted(name for name in pairs if TIED.search(name)):
        raise _refused(path, instead, f"factors of {ends[0]}")
    _check_scaling(path, instead, config, pairs)
    rank = max(int(config["r"]), *(pair.a.shape[0] for pair in pairs.values()))
    if rank > RANKS[-1]:
        raise _refused(path, instead, f"rank {rank}, over {RANKS[-1]}")
    return next(most for most in RANKS if rank <= most)


def _check_scaling(path: Path, instead: str, config: Config, pairs: dict[str, Pair]) -> None:
    """All modules must be scaled as vLLM scales them: by lora_alpha / r, of rsLoRA / √r."""
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    for name, pair in pairs.items():
        if abs(pair.scaling - scaling) > 1e-9 * abs(scaling):
            raise _refused(path, instead, f"a scaling of its own for {name} (rank_pattern, alpha_pattern)")


def _refused(path: Path, instead: str, what: str) -> BuildError:
    return BuildError(f"{path}: vLLM serves no adapter with {what}: {instead}")
