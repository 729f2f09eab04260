"""How a vote depends on the number of draws and on who votes, counted over the rows of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.curves import Curves, Point, Voter
from workflow.significance import CELLS, rounded
from workflow.subsets import SAMPLED, Sets, majority, sizes
from workflow.voters import Ballot, Voters
from workflow.voting import Ties, Vote, vote

RESAMPLES = 2000

Floats = NDArray[np.float64]


class VoteCurves:
    """Adds up, for each scored row, its maj@k and what the vote would be without each voter.

    Memory is that of the distinct values, which few draws have few of, and of the problems.
    """

    def __init__(self, voters: Voters, ties: Ties):
        """Count the votes of `voters`."""
        self.voters, self.ties = voters, ties
        self.alone: Counter[tuple[float, ...]] = Counter()  # 1 and values -> rows that are a problem each
        self.problems: dict[str, Floats] = {}  # rows and sums of their values
        self.right: Counter[str] = Counter()  # voter -> right draws
        self.agreed, self.rows = 0.0, 0
        self._curves: dict[tuple[object, ...], tuple[float, ...]] = {}
        """By how many draws gave each answer, right or wrong, and how many none."""
        self._sets: Sets | None = None

    def add(self, ballot: Ballot, result: Vote, right: Set[str]) -> None:
        """Count a row whose right answers are known."""
        self.rows += 1
        self.agreed += result.agreement
        values = (1.0, *self._curve(ballot, result, right), *self._gains(ballot, result, right))
        if ballot.row.group is None:
            self.alone[values] += 1
        else:
            before = self.problems.get(ballot.row.group)
            self.problems[ballot.row.group] = np.array(values) + (0 if before is None else before)

    def _curve(self, ballot: Ballot, result: Vote, right: Set[str]) -> tuple[float, ...]:
        abstain = self.ties.how == "abstain"
        if ballot.weights is None:
            seen = (*sorted((n, answer in right) for answer, n in result.votes.items()), result.abstentions)
            if seen not in self._curves:
                every = majority(result.votes, result.abstentions, right, abstain)
                self._curves[seen] = tuple(float(every[k - 1]) for k in sizes(len(ballot.answers)))
            return self._curves[seen]
        if self._sets is None:
            self._sets = Sets(len(ballot.answers))
        return tuple(self._sets.weighted(ballot.answers, ballot.weights, right, abstain).tolist())

    def _gains(self, ballot: Ballot, result: Vote, right: Set[str]) -> list[float]:
        """Of each voter, whether the vote is right less whether it would be without; none of an only one."""
        if len(self.voters.names) == 1:
            self.right[self.voters.names[0]] += sum(result.votes.get(answer, 0) for answer in right)
            return []
        gains, begin, voted = [], 0, result.answer in right
        for name, draws in zip(self.voters.names, ballot.draws, strict=True):
            end = begin + len(draws)
            self.right[name] += sum(answer in right for answer in ballot.answers[begin:end])
            answers = ballot.answers[:begin] + ballot.answers[end:]
            weights = ballot.weights and ballot.weights[:begin] + ballot.weights[end:]
            without = vote(answers, self.ties, ballot.row.id, weights).answer in right
            gains.append(float(voted) - float(without))
            begin = end
        return gains

    def taken(self) -> tuple[Any, ...]:
        """What was counted, to be sent to another process."""
        return self.alone, self.problems, self.right, self.agreed, self.rows, self._sets

    def absorb(self, taken: tuple[Any, ...]) -> None:
        """Add what was counted of later rows."""
        alone, problems, right, agreed, rows, sets = taken
        self.alone.update(alone)
        self.right.update(right)
        self.agreed, self.rows = self.agreed + agreed, self.rows + rows
        for group, values in problems.items():
            before = self.problems.get(group)
            self.problems[group] = values + (0 if before is None else before)
        self._sets = self._sets or sets

    def curves(self) -> Curves | None:
        """What was counted, with intervals; None if no row was."""
        if not self.rows:
            return None
        draws = sum(self.voters.counts.values())
        means, low, high = self._intervals()
        at = sizes(draws)
        return Curves(
            rows=self.rows,
            problems=self.alone.total() + len(self.problems),
            draws=draws,
            method="exact" if not self._sets else "sampled" if self._sets.sampled else "enumerated",
            subsets=SAMPLED if self._sets and self._sets.sampled else None,
            points=[Point(k=k, accuracy=means[i], low=low[i], high=high[i]) for i, k in enumerate(at)],
            agreement=rounded(self.agreed / self.rows),
            voters=[self._voter(i, means, low, high) for i in range(len(self.voters.names))],
        )

    def _voter(self, number: int, means: list[float], low: list[float], high: list[float]) -> Voter:
        name, weights = self.voters.names[number], self.voters.weights
        draws = self.voters.counts[name]
        column = len(sizes(sum(self.voters.counts.values()))) + number
        several = len(self.voters.names) > 1
        each = None if self.voters.job.slice["weights"] == "logprob" else 1.0
        return Voter(
            name=name,
            draws=draws,
            weight=weights[name] if weights else each,
            accuracy=rounded(self.right[name] / (self.rows * draws)),
            gain=means[column] if several else None,
            low=low[column] if several else None,
            high=high[column] if several else None,
        )

    def _intervals(self) -> tuple[list[float], list[float], list[float]]:
        """Mean over rows of each value, with its 95 % percentile bootstrap interval over problems.

        Problems with equal sums are drawn together, as in `significance.bootstrap`.
        """
        units = np.array([*self.alone, *self.problems.values()])
        times = np.array([*self.alone.values(), *(1 for _ in self.problems)])
        total, generator = int(times.sum()), np.random.Generator(np.random.PCG64(0))
        resampled = np.empty((RESAMPLES, units.shape[1] - 1))
        block = max(1, CELLS // len(units))
        for start in range(0, RESAMPLES, block):
            part = resampled[start : start + block]
            sums = generator.multinomial(total, times / total, size=len(part)) @ units
            part[:] = sums[:, 1:] / sums[:, :1]
        sums = times @ units
        low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
        found = [[rounded(value) for value in column] for column in (sums[1:] / sums[0], low, high)]
        return found[0], found[1], found[2]
