"""A model with every module and no memory, for what PEFT does to adapters without looking at weights.

Each weight is one zero shown in the weight's shape, on the CPU: PEFT puts adapters on the device of the layer
they belong to, so the meta device would lose them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def skeleton(folder: Path) -> Any:
    """The model of `folder`, from its config alone."""
    import torch

    from workflow.training.targets import empty_model

    model = empty_model(folder)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            hollow = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            setattr(module, name, torch.nn.Parameter(hollow, requires_grad=False))
    model.tie_weights()
    return model


def with_adapters(folder: Path, adapters: dict[str, Path]) -> Any:
    """A skeleton of the model in `folder` with real adapters.

    Args:
        folder: The model's folder.
        adapters: Name -> folder of each adapter.
    """
    import warnings

    from peft import PeftModel

    (first, path), *others = adapters.items()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(skeleton(folder), path, adapter_name=first, torch_device="cpu")
        for name, other in others:
            model.load_adapter(other, name, torch_device="cpu")
    return model
