"""Proof that packed rows do not see each other, on the very model that is about to be trained.

Whether an architecture keeps packed rows apart depends on its layers, on the attention kernel that was
chosen here and on the versions of libraries. So it is tried, not looked up: two rows in one sequence, then
another row of the same length in front. If the second row's logits change, or differ from those that
it has alone, the model mixes them.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

from workflow.errors import BuildError
from workflow.tokens import TokenRow
from workflow.training.stream import Collator

TOKENS = (11, 7)
"""Lengths of the two rows."""
NOISE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
"""Largest share of the logits' range that rounding may change."""


def prove_isolation(model: Any, config: Any, device: Any, dtype: str) -> None:
    """Compare the second of two packed rows with itself behind another row, and alone.

    Args:
        model: Called as training calls it; in training mode again afterwards.
        config: The model's, for its name and vocabulary.
        device: Where its inputs are to be.
        dtype: What it computes in.

    Raises:
        BuildError: It changed: this architecture must not be packed.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        change = leak(model, config.get_text_config().vocab_size, device)
    model.train(was_training)
    if not change <= NOISE[dtype]:
        raise BuildError(
            f"training.packing: {config.model_type} does not keep packed rows apart: a row's logits change "
            f"by {change:.2g} of their range with what is packed before it; leave packing out"
        )


def check_positions(model: Any) -> None:
    """Make sure that the architecture is told positions at all.

    Raises:
        BuildError: It takes none.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        raise BuildError(
            f"training.packing: {type(inner).__name__} takes no position ids, so packed rows would see each "
            "other; leave packing out"
        )


def leak(model: Any, vocabulary: int, device: Any) -> float:
    """How much the second row changes with what is before it, as a share of its logits' range."""
    before, other, second = (_row(s, n, vocabulary) for s, n in enumerate((*TOKENS[:1] * 2, TOKENS[1])))
    packed = Collator(0, packed=True)
    found = [
        _logits(model, packed([unit, unit]), device)
        for unit in ((before, second), (other, second), (second,))
    ]
    change = max(float((found[0] - one).abs().max()) for one in found[1:])
    return change / float(found[0].max() - found[0].min())


def _row(seed: int, tokens: int, vocabulary: int) -> TokenRow:
    ids = np.random.Generator(np.random.PCG64(seed)).integers(0, vocabulary, tokens).astype(np.int32)
    return TokenRow(str(seed), ids, np.ones(tokens, np.uint8), 0)


def _logits(model: Any, batch: dict[str, Any], device: Any) -> Any:
    tensors = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    return model(**tensors).logits[0, -TOKENS[1] :].float()
