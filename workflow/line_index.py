"""The lines of a JSON lines file, known by the digests of their bytes, and where they went after an edit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workflow.formats.reading import Items, Lines, blocks, stretches
from workflow.processes import in_order

DIGEST = np.dtype("V16")
Digests = NDArray[np.void]
Numbers = NDArray[np.int64]


class NoLines(Exception):
    """The file holds something else than JSON lines."""


@dataclass(frozen=True)
class LineIndex:
    """The lines of a file; they count from 0 here."""

    path: Path
    digests: Digests  # [lines]
    begins: Numbers  # [lines]
    sizes: Numbers  # [lines], without the line's end

    @classmethod
    def of(cls, path: Path, processes: int) -> LineIndex:
        """Read a file once.

        Raises:
            NoLines: It is a list, a table or packed.
        """
        if isinstance(next(blocks(path), None), Items):
            raise NoLines
        digests, begins, sizes = [b""], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        parts = (Lines(path, begin, size, 0) for begin, size in stretches(path))
        for begin, some, lengths in in_order(_index, parts, processes):
            digests.append(some)
            begins.append(begin + np.cumsum(lengths + 1) - lengths - 1)
            sizes.append(lengths)
        return cls(path, as_digests(b"".join(digests)), np.concatenate(begins), np.concatenate(sizes))

    def blocks(self, lines: Numbers) -> list[Lines]:
        """Each of some lines as a block of its own."""
        spans = zip(lines.tolist(), self.begins[lines].tolist(), self.sizes[lines].tolist(), strict=True)
        return [Lines(self.path, begin, size, line + 1) for line, begin, size in spans]


def _index(block: Lines) -> tuple[int, bytes, Numbers]:
    return block.begin, digests_of(block.lines), np.array([*map(len, block.lines)], np.int64)


def digests_of(lines: list[bytes]) -> bytes:
    """Half of the SHA-256 of each, one behind another."""
    return b"".join([hashlib.sha256(line).digest()[:16] for line in lines])


def as_digests(data: bytes) -> Digests:
    """Such bytes as an array, [lines]."""
    return np.frombuffer(data, DIGEST)


def same_lines(then: Digests, now: Digests) -> Numbers:
    """For each line of a file its place in the new version, where an equal line is; -1 if there is none.

    Equal lines that are not as many as before have none either.
    """
    head = _equal(then, now)
    tail = _equal(then[head:][::-1], now[head:][::-1])
    behind, shift = len(then) - tail, len(now) - len(then)
    found = np.arange(len(then))
    found[behind:] += shift
    found[head:behind] = _anywhere(then[head:behind], now[head : behind + shift], head)
    return found


def _equal(one: Digests, other: Digests) -> int:
    """How many are equal before the first that are not."""
    shorter = min(len(one), len(other))
    different = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(different[0]) if len(different) else shorter


def _anywhere(then: Digests, now: Digests, begin: int) -> Numbers:
    """The same in any order; `begin` lines are before these."""
    names, of = np.unique(np.concatenate([then, now]), return_inverse=True)
    before, after = of[: len(then)], of[len(then) :]
    kept = np.bincount(before, minlength=len(names)) == np.bincount(after, minlength=len(names))
    old, new = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
    found = np.full(len(then), -1)
    found[old[kept[before[old]]]] = begin + new[kept[after[new]]]
    return found
