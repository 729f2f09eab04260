"""The order of training rows, and the tensors of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_training import token_rows

from workflow.tokens import TokenRow
from workflow.training.stream import Collator, Stream, order


def units(rows: list[TokenRow]) -> list[tuple[TokenRow, ...]]:
    return [(row,) for row in rows]


def test_each_epoch_is_another_permutation() -> None:
    positions = order(50, 2, 7)
    assert sorted(positions[:50]) == sorted(positions[50:]) == list(range(50))
    assert positions[:50] != positions[50:]
    assert positions == order(50, 2, 7) != order(50, 2, 8)
    assert positions[:50] == order(50, 1, 7)


def test_a_stream_is_the_order_then_blank_rows() -> None:
    rows = token_rows(5)
    stream = Stream(units(rows), 1, 3, 4)
    assert len(stream) == 8
    assert [unit[0].id if unit else None for unit in map(stream.__getitem__, range(8))] == [
        *(row.id for row in longest_first(rows, order(5, 1, 3))), None, None, None,
    ]  # fmt: skip


def longest_first(rows: list[TokenRow], positions: list[int], size: int = 4) -> list[TokenRow]:
    """Batches as they are, each with its longest rows first."""
    batches = [positions[i : i + size] for i in range(0, len(positions), size)]
    return [rows[i] for batch in batches for i in sorted(batch, key=lambda i: -len(rows[i].input_ids))]


def test_a_batch_has_the_rows_of_the_order_whatever_their_lengths() -> None:
    rows = token_rows(26)
    stream, positions = Stream(units(rows), 3, 3, 8), order(26, 3, 3)
    for i in range(0, len(stream), 8):
        batch = [unit[0] for unit in map(stream.__getitem__, range(i, i + 8)) if unit]
        assert sorted(row.id for row in batch) == sorted(rows[p].id for p in positions[i : i + 8])
        lengths = [len(row.input_ids) for row in batch]
        assert lengths == sorted(lengths, reverse=True)


def test_steps_are_those_of_one_stream_of_all_epochs() -> None:
    stream = Stream(units(token_rows(26)), 3, 3, 4)
    assert stream.steps == 20  # 78 rows, not three times ceil(26 / 4)
    assert Stream(units(token_rows(26)), None, 3, 4, max_steps=9).positions == stream.positions[:36]
    assert [step for step in range(1, 21) if stream.ends_epochs(step, 1)] == [7, 13, 20]
    assert [step for step in range(1, 21) if stream.ends_epochs(step, 2)] == [13]


@pytest.mark.slow
def test_a_blank_row_has_one_token_and_no_label() -> None:
    row = TokenRow("a", np.array([5, 0, 7], np.int32), np.array([0, 1, 1], np.uint8), 1)
    batch = Collator(0)([(row,), None])
    assert batch["input_ids"].tolist() == [[5, 0, 7], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]  # a token equal to padding is a token
    assert batch["labels"].tolist() == [[-100, 0, 7], [-100, -100, -100]]
