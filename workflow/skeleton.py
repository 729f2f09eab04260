"""A model with every module and no memory, for what PEFT does to adapters without looking at weights.

Each matrix is one zero shown in the matrix's shape, on the CPU: PEFT puts adapters on the device of the layer
they belong to, so the meta device would lose them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from workflow.checkpoint import naming, read_json, read_weight_file
from workflow.errors import BuildError


def skeleton(folder: Path, whole: tuple[str, ...] = ()) -> Any:
    """The model of `folder` in float32, from its config alone: combined adapters are not rounded.

    Args:
        folder: The model's folder.
        whole: Ends of names of modules whose weights can be written to, as those of modules_to_save.
    """
    import torch

    from workflow.training.targets import empty_model

    model = empty_model(folder)
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            real = parameter.dim() < 2 or path.endswith(whole or ("\0",))
            shape = parameter.shape if real else ()
            hollow = torch.zeros(shape, dtype=torch.float32).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(hollow, requires_grad=False))
    model.tie_weights()
    return model


def with_adapters(folder: Path, adapters: dict[str, Path]) -> Any:
    """A skeleton of the model in `folder` with real adapters.

    Args:
        folder: The model's folder.
        adapters: Name -> folder of each adapter.

    Raises:
        BuildError: An adapter has too few tensors or others than it should.
    """
    from peft import PeftModel

    (first, path), *others = adapters.items()
    configs = [read_json(place / "adapter_config.json") for place in adapters.values()]
    whole = tuple(name for config in configs for name in config.get("modules_to_save") or ())
    empty = skeleton(folder, whole)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        model = PeftModel.from_pretrained(empty, path, adapter_name=first, torch_device="cpu")
        for name, other in others:
            model.load_adapter(other, name, torch_device="cpu")
    for name, place in adapters.items():
        _check_whole(model, name, place)
    return model


def _check_whole(model: Any, name: str, folder: Path) -> None:
    """PEFT fills what is missing with fresh weights and drops what it does not know."""
    from peft import get_peft_model_state_dict

    path = folder / "adapter_model.safetensors"
    there = set(read_weight_file(path).tensors)
    wanted = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    for problem, names in (("missing", wanted - there), ("not of this model", there - wanted)):
        if names:
            raise BuildError(f"{path}: {naming(sorted(names))} {problem}; the adapter is not whole")
