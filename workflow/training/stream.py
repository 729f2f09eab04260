"""The order of training rows: decided by ids and seed alone, the same for every number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workflow.tokens import TokenRow

IGNORED = -100
"""Label that the loss leaves out (torch.nn.CrossEntropyLoss, ignore_index)."""


def order(rows: int, epochs: int, seed: int) -> list[int]:
    """Positions of rows sorted by id, as one stream: a fresh permutation per epoch (PCG64)."""
    permutations = [
        np.random.Generator(np.random.PCG64([seed, epoch])).permutation(rows) for epoch in range(epochs)
    ]
    return [int(position) for permutation in permutations for position in permutation]


class Stream:
    """A map-style dataset of all epochs in order, filled up with blank rows to whole batches.

    A blank row is one padding token without a label: it adds nothing to loss or gradient, and lets the
    last batch have the same shape on every rank.
    """

    def __init__(self, rows: Sequence[TokenRow], epochs: int, seed: int, batch_size: int):
        """Order `rows` (sorted by id) for `epochs` passes."""
        self.rows = rows
        stream = order(len(rows), epochs, seed)
        batches = [stream[i : i + batch_size] for i in range(0, len(stream), batch_size)]
        self.positions = [position for batch in batches for position in self._longest_first(batch)]
        self.length = len(batches) * batch_size

    def _longest_first(self, batch: list[int]) -> list[int]:
        """The same batch, so that rows of like length share a micro batch.

        One step sees the same rows as before, and its loss is a mean over all of them: only padding goes.
        Row lengths of tutorial 0, batch 64 in micro batches of 4: 69 % of the tokens are real, so 95 %.
        """
        return sorted(batch, key=lambda position: -len(self.rows[position].input_ids))

    def __len__(self) -> int:
        """Rows of all epochs and the blank ones."""
        return self.length

    def __getitem__(self, index: int) -> TokenRow | None:
        """The row at a place of the stream; None is a blank one."""
        return self.rows[self.positions[index]] if index < len(self.positions) else None


class Collator:
    """Pads a micro batch to its longest row; attention and labels go by length, never by token."""

    def __init__(self, pad_token_id: int):
        """Fill with `pad_token_id`, which the mask hides."""
        self.pad = pad_token_id

    def __call__(self, batch: Sequence[TokenRow | None]) -> dict[str, Any]:
        """Tensors [rows, longest]: input_ids, attention_mask, labels (int64)."""
        import torch

        longest = max(len(row.input_ids) if row else 1 for row in batch)
        ids = np.full((len(batch), longest), self.pad, dtype=np.int64)
        mask = np.zeros_like(ids)
        labels = np.full_like(ids, IGNORED)
        for i, row in enumerate(batch):
            mask[i, 0] = 1  # a row that attends to nothing would be NaN
            if row:
                n = len(row.input_ids)
                ids[i, :n], mask[i, :n] = row.input_ids, 1
                labels[i, :n] = np.where(row.trained == 1, row.input_ids, IGNORED)
        tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return {name: torch.from_numpy(array) for name, array in tensors.items()}
