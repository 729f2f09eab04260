"""How a vote depends on the number of draws and on who votes, counted over the rows of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workflow.curves import Curves, Point, Voter
from workflow.significance import CELLS, rounded
from workflow.subsets import ENUMERATED, SAMPLED, Sets, majority, sizes
from workflow.voters import Ballot, Voters
from workflow.voting import Ties, Vote, vote

RESAMPLES = 2000

Floats = NDArray[np.float64]


@dataclass
class Seen:
    """What was counted over some rows; `rows` of one problem count as one thing seen."""

    rows: int = 0
    agreed: float = 0.0
    alone: Counter[tuple[float, ...]] = field(default_factory=Counter)
    """1 and the values of a row -> rows that are a problem each."""
    problems: dict[str, Floats] = field(default_factory=dict)
    """Problem -> its rows and the sums of their values."""
    right: Counter[str] = field(default_factory=Counter)
    """Voter -> right draws."""

    def add(self, group: str | None, values: tuple[float, ...]) -> None:
        """Count a row of the problem `group`."""
        self.rows += 1
        if group is None:
            self.alone[1.0, *values] += 1
        else:
            self.problems[group] = np.array((1.0, *values)) + self.problems.get(group, 0)

    def merge(self, other: Seen) -> None:
        """Add what was counted over other rows."""
        self.rows, self.agreed = self.rows + other.rows, self.agreed + other.agreed
        self.alone.update(other.alone)
        self.right.update(other.right)
        for name, sums in other.problems.items():
            self.problems[name] = sums + self.problems.get(name, 0)


class VoteCurves:
    """Adds up, for each scored row, its maj@k and what the vote would be without each voter.

    Memory is that of the distinct values, which few draws have few of, and of the problems.
    """

    def __init__(self, voters: Voters, ties: Ties):
        """Count the votes of `voters`."""
        self.voters, self.ties, self.seen = voters, ties, Seen()
        self._curves: dict[tuple[object, ...], tuple[float, ...]] = {}
        """By how many draws gave each answer, right or wrong, and how many none."""
        self._sets: Sets | None = None

    def add(self, ballot: Ballot, result: Vote, right: Set[str]) -> None:
        """Count a row whose right answers are known."""
        self.seen.agreed += result.agreement
        gains = self._gains(ballot, result, right)
        self.seen.add(ballot.row.group, (*self._curve(ballot, result, right), *gains))

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
            self.seen.right[self.voters.names[0]] += sum(result.votes.get(answer, 0) for answer in right)
            return []
        gains, begin, voted = [], 0, result.answer in right
        for name, draws in zip(self.voters.names, ballot.draws, strict=True):
            end = begin + len(draws)
            self.seen.right[name] += sum(answer in right for answer in ballot.answers[begin:end])
            answers = ballot.answers[:begin] + ballot.answers[end:]
            weights = ballot.weights and ballot.weights[:begin] + ballot.weights[end:]
            without = vote(answers, self.ties, ballot.row.id, weights).answer in right
            gains.append(float(voted) - float(without))
            begin = end
        return gains

    def curves(self) -> Curves | None:
        """What was counted, with intervals; None if no row was."""
        if not self.seen.rows:
            return None
        draws = sum(self.voters.counts.values())
        weighted = self.voters.job.slice["weights"] is not None
        sampled = weighted and draws > ENUMERATED
        means, low, high = self._intervals()
        at = sizes(draws)
        return Curves(
            rows=self.seen.rows,
            problems=self.seen.alone.total() + len(self.seen.problems),
            draws=draws,
            method="sampled" if sampled else "enumerated" if weighted else "exact",
            subsets=SAMPLED if sampled else None,
            points=[Point(k=k, accuracy=means[i], low=low[i], high=high[i]) for i, k in enumerate(at)],
            agreement=rounded(self.seen.agreed / self.seen.rows),
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
            accuracy=rounded(self.seen.right[name] / (self.seen.rows * draws)),
            gain=means[column] if several else None,
            low=low[column] if several else None,
            high=high[column] if several else None,
        )

    def _intervals(self) -> tuple[list[float], list[float], list[float]]:
        """Mean over rows of each value, with its 95 % percentile bootstrap interval over problems.

        Problems with equal sums are drawn together, as in `significance.bootstrap`.
        """
        units = np.array([*self.seen.alone, *self.seen.problems.values()])
        times = np.array([*self.seen.alone.values(), *(1 for _ in self.seen.problems)])
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
