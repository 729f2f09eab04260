"""Accuracy of every way to answer: what is counted row by row, and the figures and tests it gives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workflow.measures import Measured, Test
from workflow.results import AskedRow, Drawn, VotedLine
from workflow.significance import bootstrap, mcnemar, paired

TESTS = {
    "greedy_vs_base": ("greedy", "base"),
    "voted_vs_single": ("voted", "single"),
    "voted_vs_greedy": ("voted", "greedy"),
}
MAJORITY = "majority_class"
Cell = tuple[int, int, int]
"""Right answers, rows, and how many such problems there are."""


@dataclass
class Rates:
    """The texts behind a system's answers."""

    texts: int = 0
    asked: int = 0  # answers that could have been valid: the texts, or the rows of a vote
    parsed: int = 0
    cut: int = 0  # texts that max_tokens ended


@dataclass
class Problem:
    """The scored rows of one problem."""

    rows: int = 0
    right: Counter[str] = field(default_factory=Counter)  # system -> right answers
    golds: Counter[str] = field(default_factory=Counter)  # answer -> rows that accept it


@dataclass
class Accuracy:
    """What is counted over the scored rows: of problems of one row how many are alike, of others each."""

    draws: int = 0
    rates: dict[str, Rates] = field(default_factory=lambda: defaultdict(Rates))
    single: Counter[tuple[tuple[str, int], ...]] = field(default_factory=Counter)  # right -> such rows
    golds: Counter[str] = field(default_factory=Counter)  # of those
    problems: dict[str, Problem] = field(default_factory=lambda: defaultdict(Problem))
    only: Counter[tuple[str, str]] = field(default_factory=Counter)  # rows that only the first has right

    def add(
        self,
        row: AskedRow,
        line: VotedLine,
        drawn: Mapping[str, Sequence[Drawn]],
        answers: Mapping[str, str | None],
        accepted: Set[str],
    ) -> dict[str, float]:
        """Count the answers to a row with a gold one; system -> share of right answers.

        Args:
            row: What was asked.
            line: The vote on its draws.
            drawn: Role (draws and, where there are, greedy and base) -> texts.
            answers: Role -> the answer of its first text.
            accepted: The gold answers, as answers are read.
        """
        draws, valid = drawn["draws"], sum(line.votes.values())
        self.draws = voting = valid + line.abstentions  # those of other voters too
        cut = sum(text.finish_reason == "length" for text in draws)
        right = {
            "voted": int(line.answer in accepted),
            "draws": sum(line.votes.get(gold, 0) for gold in accepted),
        }
        self._rate("voted", len(draws), 1, line.answer is not None, cut)
        self._rate("draws", len(draws), voting, valid, cut)
        for role, answer in answers.items():
            name, text = "single" if role == "draws" else role, drawn[role][0]
            right[name] = int(answer in accepted)
            self._rate(name, 1, 1, answer is not None, text.finish_reason == "length")
        self._note(row.group, right, accepted)
        return {name: number / (voting if name == "draws" else 1) for name, number in right.items()}

    def _rate(self, name: str, texts: int, asked: int, parsed: int, cut: int) -> None:
        rates = self.rates[name]
        rates.texts += texts
        rates.asked += asked
        rates.parsed += parsed
        rates.cut += cut

    def _note(self, group: str | None, right: Mapping[str, int], accepted: Set[str]) -> None:
        for one, other in TESTS.values():
            if other in right and right[one] != right[other]:
                self.only[(one, other) if right[one] else (other, one)] += 1
        if group is None:
            self.single[tuple(right.items())] += 1
            self.golds.update(accepted)
            return
        problem = self.problems[group]
        problem.rows += 1
        problem.right.update(right)
        problem.golds.update(accepted)

    def absorb(self, other: Accuracy) -> None:
        """Add what another counted of later rows."""
        self.draws = self.draws or other.draws
        self.single += other.single
        self.golds += other.golds
        self.only += other.only
        for name, rates in other.rates.items():
            self._rate(name, rates.texts, rates.asked, rates.parsed, rates.cut)
        for group, problem in other.problems.items():
            own = self.problems[group]
            own.rows += problem.rows
            own.right += problem.right
            own.golds += problem.golds

    @property
    def majority_answer(self) -> str | None:
        """The most frequent gold answer of all rows, the first in the alphabet among equals."""
        golds = sum((problem.golds for problem in self.problems.values()), self.golds.copy())
        return min(golds, key=lambda gold: (-golds[gold], gold), default=None)

    def of_problems(self, right: Callable[[Mapping[str, int]], int]) -> Iterator[Cell]:
        """Right answers, rows, and number of such problems; `right` takes the first from all systems'."""
        for pattern, times in self.single.items():
            yield right(dict(pattern)), 1, times
        for problem in self.problems.values():
            yield right(problem.right), problem.rows, 1

    def of_majority(self) -> Iterator[Cell]:
        """The same of the baseline that gives `majority_answer` to every row."""
        answer = self.majority_answer or ""
        yield 1, 1, self.golds[answer]
        yield 0, 1, self.single.total() - self.golds[answer]
        for problem in self.problems.values():
            yield problem.golds[answer], problem.rows, 1

    @property
    def scored(self) -> int:
        """Rows."""
        return self.single.total() + sum(problem.rows for problem in self.problems.values())

    @property
    def independent(self) -> bool:
        """Whether every row is a problem of its own."""
        return all(problem.rows == 1 for problem in self.problems.values())


@dataclass(frozen=True)
class Figures:
    """What the counts say."""

    counted: Accuracy
    weigh: str | None  # problems, or rows
    resamples: int
    seed: int

    def systems(self) -> dict[str, Measured]:
        """Accuracy of each system, with its interval and rates."""
        if not self.counted.rates:
            return {}
        return {name: self._measured(name) for name in (*self.counted.rates, MAJORITY)}

    def tests(self) -> dict[str, Test]:
        """Each test of two systems that there are."""
        there = self.counted.rates.keys()
        return {name: self._test(*pair) for name, pair in TESTS.items() if set(pair) <= there}

    def _measured(self, name: str) -> Measured:
        counted = self.counted
        cells = counted.of_majority() if name == MAJORITY else counted.of_problems(lambda right: right[name])
        accuracy, drawn = self._resampled(cells, counted.draws if name == "draws" else 1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rates = counted.rates.get(name)
        return Measured(
            accuracy=accuracy,
            low=low,
            high=high,
            n=counted.scored,
            parse_rate=rates.parsed / rates.asked if rates else None,
            length_rate=rates.cut / rates.texts if rates else None,
        )

    def _test(self, one: str, other: str) -> Test:
        counted = self.counted
        better, worse = counted.only[one, other], counted.only[other, one]
        difference, drawn = self._resampled(counted.of_problems(lambda right: right[one] - right[other]))
        found = paired(difference, drawn)
        exact = mcnemar(better, worse) if counted.independent else None
        return Test(
            better=better,
            worse=worse,
            difference=found.difference,
            low=found.low,
            high=found.high,
            method="bootstrap" if exact is None else "mcnemar",
            p=found.p if exact is None else exact,
        )

    def _resampled(self, cells: Iterable[Cell], per_row: int = 1) -> tuple[float, NDArray[np.float64]]:
        """Right answers per answer, and that in each resample."""
        alike: Counter[tuple[float, float]] = Counter()
        for right, rows, times in cells:
            answers = rows * per_row
            alike[(right / answers, 1) if self.weigh == "problems" else (right, answers)] += times
        upper, lower = (sum(cell[i] * times for cell, times in alike.items()) for i in (0, 1))
        return upper / lower, bootstrap(alike, self.resamples, self.seed)
