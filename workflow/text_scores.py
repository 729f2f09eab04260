"""Metrics of texts against references: means with intervals, and a paired test of two systems.

Rows of one problem (`group`), such as a dialogue with three references in three rows, count as one: their
mean is taken, and problems are what is resampled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.results import AskedRow, Drawn, TextMeasured, TextMetric, TextTest
from workflow.rouge import Rouge

PAIRS = {"greedy_vs_base": ("greedy", "base")}
CELLS = 1 << 22
"""Bootstrap counts held at once: 32 MiB."""
EXACT = 1e-12
"""Differences as small are none: what sums of equal numbers in another order may be apart."""


@dataclass
class TextTally:
    """What is summed up over the rows; memory is some numbers per problem."""

    rouge: Rouge
    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (problem, system) -> per metric
    rows: Counter[str] = field(default_factory=Counter)  # problem -> rows
    cut: Counter[str] = field(default_factory=Counter)  # system -> texts that max_tokens ended
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, row: AskedRow, drawn: Mapping[str, Sequence[Drawn]]) -> None:
        """Count a row with references, and the texts that each system gave."""
        problem = row.group or row.id
        self.rows[problem] += 1
        for system, draws in drawn.items():
            found = np.mean([self.rouge.f1(row.gold, draw.text) for draw in draws], axis=0)
            before = self.sums.get((problem, system), [0.0] * len(found))
            self.sums[problem, system] = [a + b for a, b in zip(before, found.tolist(), strict=True)]
            self.cut[system] += sum(draw.finish_reason == "length" for draw in draws)
            self.texts[system] += len(draws)

    def metrics(self, resamples: int, seed: int) -> dict[str, TextMetric]:
        """Each metric of each system."""
        systems = list(self.texts)
        table = np.array([
            [self.sums[problem, system] for system in systems] for problem in sorted(self.rows)
        ])  # fmt: skip  # [problems, systems, metrics]
        if not len(table):
            return {}
        table /= np.array([self.rows[problem] for problem in sorted(self.rows)])[:, None, None]
        means = resampled(table.reshape(len(table), -1), resamples, seed).reshape(-1, *table.shape[1:])
        return {
            metric: self._metric(systems, table[:, :, place], means[:, :, place])
            for place, metric in enumerate(self.rouge.metrics)
        }

    def _metric(self, systems: list[str], own: NDArray[Any], means: NDArray[Any]) -> TextMetric:
        """One metric: `own` is [problems, systems], `means` [resamples, systems]."""
        measured = {
            system: TextMeasured(
                mean=_rounded(own[:, i].mean()),
                low=_rounded(np.quantile(means[:, i], 0.025)),
                high=_rounded(np.quantile(means[:, i], 0.975)),
                n=len(own),
                length_rate=self.cut[system] / self.texts[system],
            )
            for i, system in enumerate(systems)
        }
        tests = {
            name: paired(
                *((part[:, systems.index(one)] - part[:, systems.index(other)]) for part in (own, means))
            )
            for name, (one, other) in PAIRS.items()
            if {one, other} <= measured.keys()
        }
        return TextMetric(systems=measured, tests=tests)


def resampled(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of each column over rows drawn with replacement (Efron & Tibshirani 1993, 13.3).

    All columns see the same draws: differences of columns are paired, equal columns have equal means, and
    a column more changes no other.

    Args:
        values: [rows, columns].
        resamples: How often.
        seed: Seed of the generator (PCG64).

    Returns:
        [resamples, columns]
    """
    n, generator = len(values), np.random.Generator(np.random.PCG64(seed))
    means = np.empty((resamples, values.shape[1]))
    block = max(1, CELLS // n)
    for start in range(0, resamples, block):
        part = means[start : start + block]
        counts = generator.multinomial(n, np.full(n, 1 / n), size=len(part))
        part[:] = counts @ values / n
    return means


def paired(differences: NDArray[np.float64], means: NDArray[np.float64]) -> TextTest:
    """Paired bootstrap test (Koehn 2004), two-sided: twice the smaller share of resamples on one side of 0.

    Args:
        differences: One per problem.
        means: Their mean in each resample.
    """
    b = len(means)
    sides = [int((means <= EXACT).sum()), int((means >= -EXACT).sum())]
    return TextTest(
        difference=_rounded(differences.mean()),
        low=_rounded(np.quantile(means, 0.025)),
        high=_rounded(np.quantile(means, 0.975)),
        p=min(1.0, 2 * (min(sides) + 1) / (b + 1)),  # + 1: never 0 (Davison & Hinkley 1997, 4.2.1)
    )


def _rounded(value: Any) -> float:
    """To nine digits behind the point: sums may differ in the last bit between two processors."""
    return round(float(value), 9) + 0.0
