"""Rows made again after an edit: only lines that are new are parsed, and shards they do not touch are copied.

A line gives the same rows wherever it stands. So new lines are parsed, then all lines of each shard that
loses or gets a row, and of the shard behind it, whose beginning moves where the row that ends a shard is
gone. What is written is what a build from nothing would write; what is unusual is left to that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from os import SEEK_CUR
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.formats.reading import Lines
from workflow.line_index import LineIndex, NoLines, Numbers, same_lines
from workflow.origins import Origins
from workflow.processes import in_order
from workflow.sorting import Cut, Found, Part, SameId, digest_of, write_sorted

MOST = 20_000
"""Lines that are parsed one by one; more are sooner read with all the others, by several processes."""


class Unusual(Exception):
    """All rows are to be made from nothing."""


@dataclass
class Parsed:
    """What some lines give."""

    rows: list[Found] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)


class _Copy(NamedTuple):
    """A shard that stays as it is: where it begins in the former file, and where in the new one."""

    cut: Cut
    before: int
    begin: int


@dataclass(frozen=True)
class Mending:
    """A former product's file of rows, where these came from, and how lines are parsed."""

    former: Path
    origins: Origins
    parse: Callable[[Iterable[Lines]], Parsed]
    processes: int

    def rows(self, path: Path, target: Path) -> Origins:
        """Write the rows of the source `path`.

        Raises:
            Unusual: Too much of it is new, two rows have one id, the former rows are damaged or gone, or it
                does not hold JSON lines.
        """
        try:
            index = LineIndex.of(path, self.processes)
            now = same_lines(self.origins.digests, index.digests)
            fresh = self._parsed(index, np.setdiff1d(np.arange(len(index.digests)), now))
            part = self._write(index, now, fresh, target)
        except (NoLines, SameId):
            raise Unusual from None
        bad = [(line, reason) for before, reason in self.origins.bad for line in _moved([before], now)]
        left_out = {reason: _moved(lines, now) for reason, lines in self.origins.left_out.items()}
        for reason, lines in fresh.left_out.items():
            left_out[reason] = sorted(left_out.get(reason, []) + lines)
        return Origins(part, index.digests, sorted(bad + fresh.bad), left_out)

    def _parsed(self, index: LineIndex, lines: Numbers) -> Parsed:
        if len(lines) > MOST:
            raise Unusual
        return self.parse(index.blocks(lines))

    def _shard(self, row: Found) -> int:
        """The former shard that a row falls into; what is behind the last one belongs to it."""
        ends = self.origins.part.ends
        return min(bisect_left(ends, row.id), len(ends) - 1)

    def _write(self, index: LineIndex, now: Numbers, fresh: Parsed, target: Path) -> Part:
        """Write edited shards and copy the others; `now` says where the former lines are."""
        lines = [now[np.array(of_shard) - 1] for of_shard in self.origins.part.lines]
        edited = np.array([bool((of_shard < 0).any()) for of_shard in lines])
        edited[[self._shard(row) for row in fresh.rows]] = True
        edited[1:] |= edited[:-1]
        near = np.concatenate(
            [of_shard for of_shard, there in zip(lines, edited, strict=True) if there] or [now[:0]]
        )
        again = self._parsed(index, np.setdiff1d(near, [-1])).rows
        rows = sorted([*fresh.rows, *(row for row in again if edited[self._shard(row)])])
        part, copies = self._laid_out(rows, edited, lines, target)
        for _ in in_order(partial(self._copy, target), copies, self.processes):
            pass
        return part

    def _laid_out(
        self, rows: list[Found], edited: NDArray[np.bool_], lines: list[Numbers], target: Path
    ) -> tuple[Part, list[_Copy]]:
        """Write the rows of edited shards where they belong; what is to be copied between them."""
        former, shards = self.origins.part, [self._shard(row) for row in rows]
        part, copies, before = Part(), list[_Copy](), 0
        with target.open("wb") as file:
            for again, group in groupby(range(len(lines)), edited.__getitem__):
                numbers = list(group)
                if again:
                    span = slice(bisect_left(shards, numbers[0]), bisect_right(shards, numbers[-1]))
                    part.add(write_sorted(file, rows[span]))
                for number in numbers:
                    cut = former.cuts[number]
                    if not again:
                        copies.append(_Copy(cut, before, file.tell()))
                        file.seek(cut.bytes, SEEK_CUR)
                        part.add(Part([cut], [former.ends[number]], [(lines[number] + 1).tolist()]))
                    before += cut.bytes
        return part, copies

    def _copy(self, target: Path, copy: _Copy) -> None:
        try:
            with self.former.open("rb") as file:
                file.seek(copy.before)
                body = file.read(copy.cut.bytes)
        except FileNotFoundError:  # swept a moment ago
            raise Unusual from None
        if not copy.cut.label.endswith(digest_of(body)):
            raise Unusual
        with target.open("r+b") as file:
            file.seek(copy.begin)
            file.write(body)


def _moved(lines: list[int], now: Numbers) -> list[int]:
    """Where former lines are now, without those that are gone."""
    return [place + 1 for place in now[np.array(lines, np.int64) - 1].tolist() if place >= 0]
