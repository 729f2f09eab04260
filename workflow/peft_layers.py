"""Merging by PEFT's own code, one layer at a time: for methods whose arithmetic is not ours (DoRA, (IA)³).

The adapter is loaded on a model without weights. For each weight the real one is put into its layer,
the layer merges itself, and the result is taken out again: PEFT's bytes at the memory of one tensor.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from workflow.checkpoint import Edit, Tensor
from workflow.errors import BuildError
from workflow.lora import as_tensor
from workflow.skeleton import with_adapters


def layer_edits(
    base: Path, adapter: Path, tensors: dict[str, Tensor], changed: set[str]
) -> tuple[dict[str, Edit], set[str]]:
    """An edit for each weight, and each scaled bias, of an adapted layer; and their names.

    Args:
        base: Folder of the base model.
        adapter: Folder of the adapter.
        tensors: The base's tensors by name.
        changed: Gets the names of tensors that an edit has changed.

    Raises:
        BuildError: An adapted layer has no weight of its name in the base.
    """
    from peft.tuners.ia3 import IA3Layer
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = with_adapters(base, {"default": adapter})
    edits: dict[str, Edit] = {}
    for module, layer in model.get_base_model().named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        scaled = isinstance(layer, IA3Layer) and not layer.is_feedforward
        for part in ("weight", "bias") if scaled else ("weight",):
            name = f"{module}.{part}"
            if name in tensors:
                edits[name] = partial(_merge, layer, part, tensors[name], changed)
            elif part == "weight":
                raise BuildError(f"{base}: {name} is adapted but not in the base")
    return edits, set(edits)


def _merge(layer: Any, part: str, tensor: Tensor, changed: set[str], data: bytearray) -> None:
    """Let a layer merge its adapter into one real tensor, in place."""
    import torch

    original = as_tensor(data, tensor)
    inner, hollow = layer.get_base_layer(), getattr(layer.get_base_layer(), part)
    setattr(inner, part, torch.nn.Parameter(original.clone(), requires_grad=False))
    layer.merge()
    merged = getattr(inner, part).data
    layer.merged_adapters.clear()
    setattr(inner, part, hollow)
    if not torch.isfinite(merged).all():
        raise BuildError(f"{tensor.name} becomes NaN or infinite; the training diverged")
    if not torch.equal(original, merged):
        changed.add(tensor.name)
        original.copy_(merged)
