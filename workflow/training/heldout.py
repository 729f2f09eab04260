"""The loss on rows that are not trained on: which rows, and how it is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed

from workflow.errors import BuildError
from workflow.recipe.optimisation import Validation
from workflow.tokens import TokenRow
from workflow.training.stream import Collator


def hold_out(
    rows: Sequence[TokenRow], validation: Validation | None
) -> tuple[list[TokenRow], list[TokenRow]]:
    """Rows to train on and rows held out: a hash of id and seed decides, so growing data moves no row.

    Raises:
        BuildError: One of the two would be empty.
    """
    if validation is None:
        return list(rows), []
    drawn = {row.id: _drawn(row.id, validation.seed) for row in rows}
    if validation.rows is not None:
        lowest = sorted(drawn, key=lambda row_id: (drawn[row_id], row_id))[: validation.rows]
        chosen = set(lowest)
    else:
        assert validation.share is not None
        chosen = {row_id for row_id, value in drawn.items() if value < validation.share}
    held = [row for row in rows if row.id in chosen]
    if not held or len(held) == len(rows):
        raise BuildError(
            f"training.validation holds out {len(held)} of {len(rows)} rows; change `share` or `rows`"
        )
    return [row for row in rows if row.id not in chosen], held


def _drawn(row_id: str, seed: int) -> float:
    """A number in [0, 1) from the row's id."""
    digest = hashlib.blake2b(f"validation:{seed}:{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class HeldOut:
    """Measures the mean loss per trained token of all held-out rows, whatever the ranks and micro batches."""

    def __init__(self, rows: Sequence[TokenRow], micro_batch: int, pad: int, rank: int, world: int):
        """Take this rank's share of the batches; longest rows first, as many batches on every rank."""
        units = [(row,) for row in sorted(rows, key=lambda row: (-len(row.input_ids), row.id))]
        batches: list[list[Any]] = [units[i : i + micro_batch] for i in range(0, len(units), micro_batch)]
        batches += [[None]] * (-len(batches) % world)  # ZeRO-3 gathers weights in every forward pass
        self.batches, self.collator = batches[rank::world], Collator(pad)

    def loss(self, model: Any, device: Any) -> float:
        """The mean over all ranks; the model is in training mode again afterwards."""
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            for batch in self.batches:
                tensors = {name: tensor.to(device) for name, tensor in self.collator(batch).items()}
                one = torch.ones((), device=device)  # a sum, not a mean
                sums[0] += model(**tensors, num_items_in_batch=one).loss.double()
                sums[1] += (tensors["labels"][:, 1:] != -100).sum()
        model.train(was_training)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1])
