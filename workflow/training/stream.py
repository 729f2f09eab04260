"""The order of training rows: decided by ids and seed alone, the same for every number of processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.training.packing import Unit

IGNORED = -100
"""Label that the loss leaves out (torch.nn.CrossEntropyLoss, ignore_index)."""

GROUPED = 50
"""Batches whose rows are sorted by length together, if rows are grouped (as transformers does)."""


def order(units: int, epochs: int, seed: int) -> list[int]:
    """Positions of units sorted by id, as one stream: a fresh permutation per epoch (PCG64)."""
    return [int(position) for epoch in range(epochs) for position in _permutation(units, epoch, seed)]


def _permutation(units: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(units)


def grouped_order(lengths: Sequence[int], epochs: int, seed: int, batch_size: int) -> list[int]:
    """The same stream with units of like length in one batch.

    In each epoch GROUPED batches at a time are sorted by length and cut into batches, which are shuffled.
    The batch that two epochs share is filled up first, so that later batches are not cut askew.
    """
    sizes = np.asarray(lengths)
    stream: list[int] = []
    for epoch in range(epochs):
        permutation = _permutation(len(lengths), epoch, seed)
        shared = min(-len(stream) % batch_size, len(permutation))
        stream += permutation[:shared].tolist()
        random = np.random.Generator(np.random.PCG64([seed, epoch, 1]))
        for begin in range(shared, len(permutation), GROUPED * batch_size):
            mega = permutation[begin : begin + GROUPED * batch_size]
            mega = mega[np.argsort(-sizes[mega], kind="stable")]
            whole = len(mega) // batch_size
            for batch in random.permutation(whole):  # a short one stays the last
                stream += mega[batch * batch_size : (batch + 1) * batch_size].tolist()
            stream += mega[whole * batch_size :].tolist()
    return stream


class Stream:
    """A map-style dataset of all epochs in order, filled up with blank units to whole batches.

    A blank one is one padding token without a label: it adds nothing to loss or gradient, and lets the
    last batch have the same shape on every rank.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        epochs: int | None,
        seed: int,
        batch_size: int,
        max_steps: int | None = None,
        grouped: bool = False,
    ):
        """Order `units` (rows or packed rows, sorted by id) for so many passes or steps."""
        self.units, self.batch_size = units, batch_size
        self.lengths = [sum(len(row.input_ids) for row in unit) for unit in units]
        if epochs is None:
            epochs = math.ceil((max_steps or 0) * batch_size / len(units))
        if grouped:
            stream = grouped_order(self.lengths, epochs, seed, batch_size)
        else:
            stream = order(len(units), epochs, seed)
        if max_steps is not None:
            stream = stream[: max_steps * batch_size]
        batches = [stream[i : i + batch_size] for i in range(0, len(stream), batch_size)]
        self.positions = [position for batch in batches for position in self._longest_first(batch)]
        self.steps = len(batches)

    def _longest_first(self, batch: list[int]) -> list[int]:
        """The same batch, so that rows of like length share a micro batch.

        One step sees the same rows as before, and its loss is a mean over all of them: only padding goes.
        Row lengths of tutorial 0, batch 64 in micro batches of 4: 69 % of the tokens are real, so 95 %.
        """
        return sorted(batch, key=lambda position: -self.lengths[position])

    def __len__(self) -> int:
        """Units of all epochs and the blank ones."""
        return self.steps * self.batch_size

    def __getitem__(self, index: int) -> Unit | None:
        """The unit at a place of the stream; None is a blank one."""
        return self.units[self.positions[index]] if index < len(self.positions) else None

    def epochs_after(self, step: int) -> float:
        """Passes over all units after so many steps."""
        return min(step * self.batch_size, len(self.positions)) / len(self.units)

    def ends_epochs(self, step: int, every: int) -> bool:
        """Whether this step is the first after the end of an `every`-th epoch."""
        before, after = self.epochs_after(step - 1), self.epochs_after(step)
        return int(after / every + 1e-9) > int(before / every + 1e-9)

    def tokens_after(self, step: int) -> int:
        """Tokens of the first steps, padding left out."""
        return int(self._running[min(step * self.batch_size, len(self.positions))])

    @cached_property
    def _running(self) -> NDArray[np.int64]:
        lengths = np.array([self.lengths[position] for position in self.positions], np.int64)
        return np.concatenate([[0], np.cumsum(lengths)])

    def seen(self, steps: int) -> tuple[int, int]:
        """Tokens, and tokens with a label, of the first steps."""
        tokens = trained = 0
        labels = [sum(int(row.trained.sum()) for row in unit) for unit in self.units]
        for position in self.positions[: steps * self.batch_size]:
            tokens, trained = tokens + self.lengths[position], trained + labels[position]
        return tokens, trained


class Collator:
    """Pads a micro batch to its longest unit; attention and labels go by length, never by token.

    A packed batch has position ids that start again with each row, and no mask: from them transformers
    makes attention that stays inside a row. Its padding is one more row, without labels.
    """

    def __init__(self, pad_token_id: int, packed: bool = False):
        """Fill with `pad_token_id`."""
        self.pad, self.packed = pad_token_id, packed

    def __call__(self, batch: Sequence[Unit | None]) -> dict[str, Any]:
        """Tensors [units, longest], int64: input_ids, labels, and attention_mask or position_ids."""
        import torch

        longest = max(1, *(sum(len(row.input_ids) for row in unit or ()) for unit in batch))
        ids = np.full((len(batch), longest), self.pad, dtype=np.int64)
        mask, positions = np.zeros_like(ids), np.zeros_like(ids)
        labels = np.full_like(ids, IGNORED)
        for i, unit in enumerate(batch):
            end = 0
            for row in unit or ():
                begin, end = end, end + len(row.input_ids)
                ids[i, begin:end], mask[i, begin:end] = row.input_ids, 1
                positions[i, begin:end] = np.arange(end - begin)
                labels[i, begin:end] = np.where(row.trained == 1, row.input_ids, IGNORED)
                labels[i, begin] = IGNORED  # nothing of its own row is before it
            positions[i, end:] = np.arange(longest - end)
            mask[i, 0] = 1  # a row that attends to nothing would be NaN
        tensors = {"input_ids": ids, "labels": labels}
        tensors |= {"position_ids": positions} if self.packed else {"attention_mask": mask}
        return {name: torch.from_numpy(array) for name, array in tensors.items()}
