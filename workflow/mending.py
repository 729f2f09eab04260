"""Rows made again after an edit: only lines that are new are parsed, and shards they do not touch are copied.

A line gives the same rows wherever it stands. So new lines are parsed, then all lines of each shard that
loses or gets a row, and of the shard behind it, whose beginning moves where the row that ends a shard is
gone. What is written is what a build from nothing would write; what is unusual is left to that.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np

from workflow.formats.reading import Lines
from workflow.line_index import LineIndex, NoLines, Numbers, same_lines
from workflow.origins import Origins
from workflow.sorting import Cut, Found, Part, SameId, copy, digest_of, write_sorted

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
        except (NoLines, SameId, EOFError, FileNotFoundError):
            raise Unusual from None
        bad = [(line, reason) for before, reason in self.origins.bad for line in _moved([before], now)]
        left_out = {reason: _moved(lines, now) for reason, lines in self.origins.left_out.items()}
        for reason, lines in fresh.left_out.items():
            left_out[reason] = left_out.get(reason, []) + lines
        left_out = {reason: sorted(lines) for reason, lines in left_out.items() if lines}
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
        """Write the rows; `now` says where the former lines are."""
        lines = [now[np.array(of_shard) - 1] for of_shard in self.origins.part.lines]
        edited = np.array([bool((of_shard < 0).any()) for of_shard in lines])
        edited[[self._shard(row) for row in fresh.rows]] = True
        edited[1:] |= edited[:-1]
        near = [of_shard for of_shard, there in zip(lines, edited, strict=True) if there]
        again = self._parsed(index, np.setdiff1d(np.concatenate([now[:0], *near]), [-1]))
        part = self._joined(sorted(fresh.rows + again.rows), edited.tolist(), lines, target)
        if not _intact(target, part.cuts, self.processes):
            raise Unusual
        return part

    def _joined(self, rows: list[Found], edited: list[bool], lines: list[Numbers], target: Path) -> Part:
        """Write the rows of edited shards, and between them the former file's other shards."""
        shards, part, begin = [self._shard(row) for row in rows], Part(), 0
        with self.former.open("rb") as former, target.open("wb") as file:
            for again, group in groupby(range(len(edited)), edited.__getitem__):
                numbers = list(group)
                span = slice(numbers[0], numbers[-1] + 1)
                cuts, ends = self.origins.part.cuts[span], self.origins.part.ends[span]
                size = sum(cut.bytes for cut in cuts)
                if again:
                    first, behind = bisect_left(shards, span.start), bisect_left(shards, span.stop)
                    part.add(write_sorted(file, rows[first:behind]))
                else:
                    copy(former, begin, size, file)
                    part.add(Part(cuts, ends, [(of_shard + 1).tolist() for of_shard in lines[span]]))
                begin += size
        return part


def _intact(path: Path, cuts: list[Cut], threads: int) -> bool:
    """Whether all shards of a file are what their labels say."""

    def holds(begin: int, cut: Cut) -> bool:
        with path.open("rb", buffering=0) as file:
            return cut.label.endswith(digest_of(os.pread(file.fileno(), cut.bytes, begin)))

    begins = accumulate((cut.bytes for cut in cuts), initial=0)
    with ThreadPoolExecutor(threads) as pool:  # hashing lets other threads work
        return all(pool.map(holds, begins, cuts))


def _moved(lines: list[int], now: Numbers) -> list[int]:
    """Where former lines are now, without those that are gone."""
    return [place + 1 for place in now[np.array(lines, np.int64) - 1].tolist() if place >= 0]
