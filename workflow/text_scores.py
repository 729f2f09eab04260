"""Metrics of texts: figures with intervals, and a paired test of two systems.

Rows of one problem (`group`), such as a dialogue with three references in three rows, count as one: their
mean is taken. With `weigh: rows` each row counts. In both cases problems are what is resampled.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.measures import TextMeasured, TextMetric
from workflow.metrics.metric import Metric
from workflow.results import AskedRow, Drawn
from workflow.significance import paired, resampled, rounded

PAIRS = {"greedy_vs_base": ("greedy", "base")}
Values = dict[str, dict[str, float]]
"""Metric -> system -> what one row is worth."""


@dataclass
class TextTally:
    """What is noted of the rows: for each text some numbers."""

    metrics: Sequence[Metric]
    problems: list[str] = field(default_factory=list)  # of each row
    tables: dict[str, array[float]] = field(default_factory=dict)  # system -> rows by columns; NaN: unscored
    references: set[int] = field(default_factory=set)  # how many there were
    cut: Counter[str] = field(default_factory=Counter)  # system -> texts that max_tokens ended
    texts: Counter[str] = field(default_factory=Counter)

    def add(self, row: AskedRow, drawn: Mapping[str, Sequence[Drawn]]) -> Values:
        """Note a row and the texts that each system gave."""
        asked = [metric for metric in self.metrics if row.gold or not metric.needs_gold]
        if not asked:
            return {}
        self.problems.append(row.group or row.id)
        if row.gold:
            self.references.add(len(row.gold))
        values: Values = {metric.name: {} for metric in asked}
        for system, draws in drawn.items():
            self.tables.setdefault(system, array("d")).extend(self._cells(row, system, draws, values))
            self.cut[system] += sum(draw.finish_reason == "length" for draw in draws)
            self.texts[system] += len(draws)
        return values

    def _cells(self, row: AskedRow, system: str, draws: Sequence[Drawn], values: Values) -> list[float]:
        """Mean value of each metric, and sums of its statistics."""
        cells = []
        for metric in self.metrics:
            if metric.name not in values:
                cells += [float("nan")] * (1 + metric.width)
                continue
            found = [metric.measure(row, draw.text) for draw in draws]
            value = sum(one for one, _ in found) / len(found)
            values[metric.name][system] = rounded(value)
            cells += [value, *(sum(column) for column in zip(*(each for _, each in found), strict=True))]
        return cells

    def absorb(self, other: TextTally) -> None:
        """Add what another tally noted of later rows."""
        self.problems += other.problems
        for system, table in other.tables.items():
            self.tables.setdefault(system, array("d")).extend(table)
        self.references |= other.references
        self.cut += other.cut
        self.texts += other.texts

    def results(self, weigh: str | None, resamples: int, seed: int) -> dict[str, TextMetric]:
        """Each metric of each system; one that no row could be measured by is left out."""
        if not self.problems:
            return {}
        widths = [1 + metric.width for metric in self.metrics]
        tables = {
            system: np.frombuffer(table).reshape(-1, sum(widths)) for system, table in self.tables.items()
        }
        names, places = np.unique(np.array(self.problems, object), return_inverse=True)
        found = {}
        for metric, begin in zip(self.metrics, accumulate(widths, initial=0), strict=False):
            columns = {name: table[:, begin : begin + 1 + metric.width] for name, table in tables.items()}
            there = ~np.isnan(next(iter(columns.values()))[:, 0])
            if there.any():
                kept = {name: table[there] for name, table in columns.items()}
                measured = _Measuring(metric, kept, places[there], weigh)
                found[metric.name] = self._metric(measured, resamples, seed)
        return found

    def _metric(self, measuring: _Measuring, resamples: int, seed: int) -> TextMetric:
        """One metric with its intervals and tests."""
        own, drawn = measuring.figures(resamples, seed)
        systems = list(measuring.systems)
        measured = {
            system: TextMeasured(
                mean=rounded(own[i]),
                low=rounded(np.quantile(drawn[:, i], 0.025)),
                high=rounded(np.quantile(drawn[:, i], 0.975)),
                n=measuring.problems,
                length_rate=self.cut[system] / self.texts[system],
            )
            for i, system in enumerate(systems)
        }
        tests = {
            name: paired(
                *(part[..., systems.index(one)] - part[..., systems.index(other)] for part in (own, drawn))
            )
            for name, (one, other) in PAIRS.items()
            if {one, other} <= measured.keys()
        }
        return TextMetric(
            signature=self._signature(measuring.metric),
            of="corpus" if measuring.metric.width else "mean",
            systems=measured,
            tests=tests,
        )

    def _signature(self, metric: Metric) -> str:
        several = self.references - {1}
        return metric.signature.replace("nrefs:1|", "nrefs:var|") if several else metric.signature


class _Measuring:
    """One metric of all systems: sums over rows of each problem, and figures of them."""

    def __init__(
        self, metric: Metric, tables: Mapping[str, NDArray[Any]], places: NDArray[Any], weigh: str | None
    ):
        self.metric, self.systems = metric, tables
        _, problems = np.unique(places, return_inverse=True)
        rows = np.bincount(problems).astype(float)
        self.problems = len(rows)
        columns = [
            np.bincount(problems, table[:, c]) for table in tables.values() for c in range(table.shape[1])
        ]
        weights = rows if weigh == "rows" else np.ones(len(rows))
        self.sums = np.stack([*(column * weights / rows for column in columns), weights], axis=1)

    def figures(self, resamples: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Of all systems: the figure [systems], and that of each resample [resamples, systems]."""
        own = self._figures(self.sums.sum(axis=0)[None])[0]
        return own, np.concatenate([self._figures(sums) for sums in resampled(self.sums, resamples, seed)])

    def _figures(self, sums: NDArray[Any]) -> NDArray[Any]:
        """Sums [any number, columns] -> figures [the same, systems]."""
        per, corpus = 1 + self.metric.width, self.metric.corpus
        firsts = [sums[:, i * per] for i in range(len(self.systems))]
        if per == 1:
            return np.stack([first / sums[:, -1] for first in firsts], axis=1)
        return np.array([
            [corpus(line[i * per + 1 : (i + 1) * per].tolist()) for i in range(len(self.systems))]
            for line in sums
        ])  # fmt: skip
