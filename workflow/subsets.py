"""The vote of k of a row's n draws, in the mean over all sets of k (maj@k).

A tie counts the share of the tied answers that are right, or nothing where ties abstain: so the order of
the draws, which says nothing, does not matter. Where all votes count one, the mean is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from workflow.voting import EQUAL

MOST_POINTS = 20
ENUMERATED = 10
"""Draws of which every set is voted where weights differ: 1,023 sets."""
SAMPLED = 100
"""Sets of each size that are voted where there are more draws."""

Floats = NDArray[np.float64]


def sizes(n: int) -> list[int]:
    """Sizes that a curve has: 1 to n, or about `MOST_POINTS` of them, denser where they are small."""
    if n <= MOST_POINTS:
        return list(range(1, n + 1))
    return sorted({round(n ** (i / (MOST_POINTS - 1))) for i in range(MOST_POINTS)})


def majority(votes: Mapping[str, int], abstentions: int, right: Set[str], abstain: bool) -> Floats:
    """Share of sets of k draws whose majority is right, for k from 1 to n.

    Args:
        votes: Answer -> draws that gave it.
        abstentions: Draws without an answer; sets are made of them too.
        right: Right answers.
        abstain: Whether a tie is no answer.
    """
    found = np.zeros(sum(votes.values()) + abstentions)
    for answer in votes.keys() & right:
        others = sorted(count for other, count in votes.items() if other != answer)
        found = found + _wins(votes[answer], tuple(others), abstentions, abstain)
    return found


@lru_cache(1 << 16)
def _wins(own: int, others: tuple[int, ...], nothing: int, abstain: bool) -> Floats:
    """Share of sets of k draws that an answer with `own` draws wins, for k from 1 to n.

    It has j draws in comb(own, j) ways, and wins if no other has more: their ways are coefficients of a
    product of polynomials, x counting draws and y those answers that have j too. All terms are positive, so
    floats lose nothing.
    """
    n = own + sum(others) + nothing
    ways = np.zeros(n + 1)
    for j in range(1, own + 1):
        table = _ways_of_others(others, nothing, j, n)
        shares = [1.0] + [0.0 if abstain else 1 / (1 + t) for t in range(1, table.shape[1])]
        ways[j:] += comb(own, j) * (table @ np.array(shares))[: n + 1 - j]
    won: Floats = ways[1:] / np.array([float(comb(n, k)) for k in range(1, n + 1)])
    return won


def _ways_of_others(others: Sequence[int], nothing: int, most: int, n: int) -> Floats:
    """[draws, answers with `most` of them] -> ways to choose from the other answers, none with more."""
    table = np.zeros((n + 1, sum(count >= most for count in others) + 1))
    table[: nothing + 1, 0] = [float(comb(nothing, s)) for s in range(nothing + 1)]
    for count in others:
        grown = np.zeros_like(table)
        for s in range(min(count, most - 1) + 1):
            grown[s:] += comb(count, s) * table[: n + 1 - s]
        if count >= most:
            grown[most:, 1:] += comb(count, most) * table[: n + 1 - most, :-1]
        table = grown
    return table


class Sets:
    """Sets of draws, for votes whose weights differ: all of them, or some of each size."""

    def __init__(self, n: int, seed: int = 0):
        """Choose sets of `n` draws; the same for every row."""
        self.sizes, self.sampled = sizes(n), n > ENUMERATED
        self.masks, ends = np.zeros((0, n)), [0]
        blocks = [self._some(n, k, seed) if self.sampled else _all(n, k) for k in self.sizes]
        for block in blocks:
            ends.append(ends[-1] + len(block))
        self.masks, self._ends = np.concatenate(blocks), ends

    def _some(self, n: int, k: int, seed: int) -> Floats:
        if comb(n, k) <= SAMPLED:
            return _all(n, k)
        generator = np.random.Generator(np.random.PCG64([seed, k]))
        chosen = generator.random((SAMPLED, n)).argsort(axis=1, kind="stable") < k
        return chosen.astype(np.float64)

    def weighted(
        self, answers: Sequence[str | None], weights: Sequence[float], right: Set[str], abstain: bool
    ) -> Floats:
        """Share of sets whose vote is right, for each of `sizes`; arguments as in `majority`."""
        names = list(dict.fromkeys(answer for answer in answers if answer is not None))
        if not set(names) & right:
            return np.zeros(len(self.sizes))
        given = np.array(
            [[w * (answer == name) for name in names] for answer, w in zip(answers, weights, strict=True)]
        )
        sums = self.masks @ given
        most = sums.max(axis=1, keepdims=True)
        winners = (sums >= most * (1 - EQUAL)) & (most > 0)
        tied = winners.sum(axis=1)
        share = winners[:, [name in right for name in names]].sum(axis=1) / np.maximum(tied, 1)
        if abstain:
            share[tied > 1] = 0.0
        return np.add.reduceat(share, self._ends[:-1]) / np.diff(self._ends)


@lru_cache(4)
def sets_of(n: int) -> Sets:
    """The sets of `n` draws, chosen once."""
    return Sets(n)


def _all(n: int, k: int) -> Floats:
    masks = np.zeros((comb(n, k), n))
    for mask, chosen in zip(masks, combinations(range(n), k), strict=True):
        mask[list(chosen)] = 1
    return masks
