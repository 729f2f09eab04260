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

from workflow.results import AskedRow, Drawn, TextMeasured, TextMetric
from workflow.rouge import Rouge
from workflow.significance import paired, resampled, rounded

PAIRS = {"greedy_vs_base": ("greedy", "base")}


@dataclass
class TextTally:
    """What is summed up over the rows; memory is some numbers per problem."""

    rouge: Rouge
    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (problem, system) -> per metric
    rows: Counter[str] = field(default_factory=Counter)  # problem -> rows
    cut: Counter[str] = field(default_factory=Counter)  # system -> texts that max_tokens ended
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, row: AskedRow, drawn: Mapping[str, Sequence[Drawn]]) -> dict[str, dict[str, float]]:
        """Count a row with references and the texts that each system gave; metric -> system -> value."""
        problem = row.group or row.id
        self.rows[problem] += 1
        values: dict[str, dict[str, float]] = {metric: {} for metric in self.rouge.metrics}
        for system, draws in drawn.items():
            found = np.mean([self.rouge.f1(row.gold, draw.text) for draw in draws], axis=0)
            before = self.sums.get((problem, system), [0.0] * len(found))
            self.sums[problem, system] = [a + b for a, b in zip(before, found.tolist(), strict=True)]
            for metric, value in zip(self.rouge.metrics, found, strict=True):
                values[metric][system] = rounded(value)
            self.cut[system] += sum(draw.finish_reason == "length" for draw in draws)
            self.texts[system] += len(draws)
        return values

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
                mean=rounded(own[:, i].mean()),
                low=rounded(np.quantile(means[:, i], 0.025)),
                high=rounded(np.quantile(means[:, i], 0.975)),
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
