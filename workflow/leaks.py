"""How much of each test row the training rows show: 8-grams of words, as PaLM's authors counted them.

A test row counts as shown when at least 70 % of its 8-grams are somewhere in the training rows (Chowdhery et
al. 2022, section 8). What many problems of the test split have in common, such as an instruction in front
of every question, says nothing about a leak and is left out: 8-grams in more than `COMMON` problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.words import grams

WORDS = 8
SHOWN = 0.7
COMMON = 10
BLOCK = 1 << 20
"""Characters looked at together; they take about 80 bytes each."""
_BITS = 24


class Told(NamedTuple):
    """The texts of one row, and the problem it is a question of."""

    id: str
    problem: str
    texts: list[str]


class Leak(NamedTuple):
    """A test row that training rows show."""

    train: str  # the training row that has most of it, or one of them
    test: str
    share: float  # of its 8-grams
    longest: int  # words of its longest stretch all of whose 8-grams are shown


class Leaks:
    """The 8-grams of the test rows, and which of them training rows have shown.

    Memory is that of the test rows' digests, about 40 bytes a word, and one block of training rows.
    """

    def __init__(self, rows: Iterable[Told]):
        """Take in the test rows."""
        self.ids, problems = list[str](), list[str]()
        digests, of, texts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for block in _blocks(rows):
            found, row, text = _grams(block)
            digests.append(found)
            of.append(row + len(self.ids))
            texts.append(text)
            self.ids += [one.id for one in block]
            problems += [one.problem for one in block]
        self.row, self.text = np.concatenate(of), np.concatenate(texts)
        self.known, self.gram = np.unique(np.concatenate(digests), return_inverse=True)
        self.telling = ~self._common(problems)[self.gram]
        self.by = np.full(len(self.known), None, object)
        self._maybe = np.zeros(1 << _BITS, bool)
        self._maybe[self.known >> np.uint64(64 - _BITS)] = True

    def _common(self, problems: list[str]) -> NDArray[np.bool_]:
        """Of each 8-gram whether more than `COMMON` problems have it."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(problems))}
        of = np.array([numbers[name] for name in problems], np.int64)
        pairs = np.unique(self.gram * max(1, len(numbers)) + of[self.row])
        problems_with = np.bincount(pairs // max(1, len(numbers)), minlength=len(self.known))
        return np.asarray(problems_with > COMMON)

    def show(self, rows: Iterable[Told]) -> None:
        """Look at training rows, block by block."""
        for block in _blocks(rows):
            if not len(self.known):
                continue
            ids = np.array([one.id for one in block], object)
            digests, row, _ = _grams(block)
            maybe = self._maybe[digests >> np.uint64(64 - _BITS)]
            digests, row = digests[maybe], row[maybe]
            places = np.minimum(np.searchsorted(self.known, digests), len(self.known) - 1)
            there = self.known[places] == digests
            self.by[places[there]] = ids[row[there]]

    def found(self) -> tuple[list[Leak], int]:
        """The test rows of which at least `SHOWN` is shown, and the words of the longest stretch."""
        shown = (self.by != None)[self.gram] & self.telling  # noqa: E711 (an array)
        size = len(self.ids)
        every = np.bincount(self.row[self.telling], minlength=size)
        share = np.bincount(self.row[shown], minlength=size) / np.maximum(1, every)
        longest = self._longest(shown)
        leaks = [
            Leak(self._source(i, shown), self.ids[i], round(float(share[i]), 4), int(longest[i]))
            for i in np.flatnonzero(share >= SHOWN)
        ]
        return leaks, int(longest.max(initial=0))

    def _longest(self, shown: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Of each row the words of its longest stretch all of whose 8-grams are shown."""
        follows = np.zeros(len(shown), bool)
        follows[1:] = shown[:-1] & (self.row[1:] == self.row[:-1]) & (self.text[1:] == self.text[:-1])
        first = np.flatnonzero(shown & ~follows)
        longest = np.zeros(len(self.ids), np.int64)
        run = np.cumsum(shown & ~follows)[shown] - 1
        np.maximum.at(longest, self.row[first], np.bincount(run, minlength=len(first)) + WORDS - 1)
        return longest

    def _source(self, row: int, shown: NDArray[np.bool_]) -> str:
        begin, end = np.searchsorted(self.row, [row, row + 1])
        counted: Counter[Any] = Counter(self.by[self.gram[begin:end][shown[begin:end]]].tolist())
        return str(min(counted, key=lambda id: (-counted[id], id)))


def _grams(block: list[Told]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The 8-grams of some rows, and of each the number of its row and of its text."""
    digests, text = grams(list(chain.from_iterable(one.texts for one in block)), WORDS)
    rows = np.repeat(np.arange(len(block)), [len(one.texts) for one in block])
    return digests, rows[text], text


def _blocks(rows: Iterable[Told]) -> Iterator[list[Told]]:
    block: list[Told] = []
    size = 0
    for row in rows:
        block.append(row)
        size += sum(map(len, row.texts))
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
