"""Several arms on the same test rows: figures with intervals, and paired differences from the first.

Rows are paired by id. What is resampled are problems (rows of one `group`; a row without one is its own), and
every arm sees the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.errors import BuildError
from workflow.results import Item, read_records
from workflow.significance import mcnemar, paired, resampled, rounded

SYSTEMS = ("voted", "greedy", "draws", "single", "base")
"""What a recipe is judged by: the first of these that a metric has of every arm."""
OF_A_CORPUS = ("bleu", "chrf")
"""Metrics whose figure in scores.json is of all texts together; here they are means over rows."""
LEVEL, POWER = 0.05, 0.8
"""Of tests: how often chance alone may look like a difference, and how often a difference must be found."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A mean over the test rows with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """An arm less the first one.

    `p` is McNemar's exact one where each row is right or wrong and a problem by itself, else that of the
    paired bootstrap; `corrected` by Holm over the arms. `better` and `worse`: rows that only this arm, or
    only the first, has right; None for other values. `detectable`: the smallest true difference that such
    rows would show in four of five experiments; None where no row differs, so nobody can tell.
    """

    difference: float
    low: float
    high: float
    p: float
    corrected: float
    test: str
    better: int | None
    worse: int | None
    detectable: float | None

    @property
    def shown(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.corrected < LEVEL


@dataclass(frozen=True)
class Compared:
    """One metric of one system: each arm's figure, and the differences from the first arm."""

    metric: str
    system: str
    rows: int
    problems: int
    figures: dict[str, Figure]
    gains: dict[str, Gain]


@dataclass(frozen=True)
class Paired:
    """The comparison, and what was left out of it: arm -> scored rows that another arm has no score of."""

    compared: list[Compared]
    unpaired: dict[str, int]

    @property
    def headlines(self) -> list[Compared]:
        """One per metric: of the system that a recipe is judged by."""
        first: dict[str, Compared] = {}
        for one in self.compared:
            first.setdefault(one.metric, one)
        return list(first.values())


def compare(
    files: Mapping[str, Path], metrics: Sequence[str], weigh: str | None, resamples: int, seed: int
) -> Paired:
    """Pair the rows of several items.jsonl and compare all others with the first.

    Args:
        files: Arm -> its items.jsonl.
        metrics: Metrics in the order of importance; those that an arm lacks are left out.
        weigh: `rows` or `problems`, as in scoring.weigh; None: accuracy by rows, the rest by problems.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        BuildError: A file is damaged, no row is scored in all arms, or no metric is.
    """
    items = {arm: {item.id: item for item in read_records(path, Item)} for arm, path in files.items()}
    common = sorted(set.intersection(*(set(found) for found in items.values())))
    if not common:
        raise BuildError(
            f"{', '.join(files)}: no test row is scored in all of them; there is nothing to compare"
        )
    unpaired = {arm: len(found) - len(common) for arm, found in items.items()}
    found = []
    for metric in metrics:
        for system in SYSTEMS:
            ids = [
                id for id in common if all(system in arm[id].values.get(metric, ()) for arm in items.values())
            ]
            if ids:
                by_rows = (weigh or ("rows" if metric == "accuracy" else "problems")) == "rows"
                found.append(_compared(metric, system, items, ids, (by_rows, resamples, seed)))
    if not found:
        what = ", ".join(metrics)
        raise BuildError(f"{', '.join(files)}: of {what} none has values row by row in all of them")
    return Paired(found, unpaired)


def _problem(item: Item) -> str:
    """What a row belongs to; a group and a row without one never share a name."""
    return f"row {item.id}" if item.group is None else f"group {item.group}"


def _compared(
    metric: str,
    system: str,
    items: Mapping[str, Mapping[str, Item]],
    ids: Sequence[str],
    drawing: tuple[bool, int, int],
) -> Compared:
    arms = list(items)
    values = np.array([[arm[id].values[metric][system] for arm in items.values()] for id in ids], float)
    problems, place = np.unique([_problem(items[arms[0]][id]) for id in ids], return_inverse=True)
    means = _means(values, place, len(problems), *drawing)
    tests = [_test(values[:, [0, i]], len(problems), means[:, i] - means[:, 0]) for i in range(1, len(arms))]
    corrected = holm([p for p, *_ in tests])
    gains = {
        arm: _gain(means[:, i] - means[:, 0], *tests[i - 1], corrected[i - 1], len(tests))
        for i, arm in enumerate(arms)
        if i
    }
    figures = {arm: Figure(*_interval(means[:, i])) for i, arm in enumerate(arms)}
    return Compared(metric, system, len(ids), len(problems), figures, gains)


def _means(
    values: Array, place: NDArray[np.intp], problems: int, by_rows: bool, resamples: int, seed: int
) -> Array:
    """Means of each arm: [1 + resamples, arms], the first of the rows as they are."""
    sums = np.zeros((problems, values.shape[1]))
    np.add.at(sums, place, values)
    rows = np.bincount(place, minlength=problems).astype(float)
    if not by_rows:
        sums, rows = sums / rows[:, None], np.ones(problems)
    table = np.column_stack([sums, rows])
    totals = np.concatenate([table.sum(axis=0, keepdims=True), *resampled(table, resamples, seed)])
    return np.asarray(totals[:, :-1] / totals[:, -1:], float)


def _interval(means: Array) -> tuple[float, float, float]:
    low, high = np.quantile(means[1:], [0.025, 0.975])
    return rounded(means[0]), rounded(low), rounded(high)


def _test(pair: Array, problems: int, differences: Array) -> tuple[float, str, int | None, int | None]:
    """p, which test it is of, and the rows on which only the one or the other is right."""
    p = paired(differences[0], differences[1:]).p
    if not pair.any() or not np.isin(pair, (0.0, 1.0)).all():  # all 0: it may be any metric
        return p, "paired bootstrap", None, None
    better, worse = int((pair[:, 1] > pair[:, 0]).sum()), int((pair[:, 1] < pair[:, 0]).sum())
    if problems < len(pair):
        return p, "paired bootstrap", better, worse
    return mcnemar(better, worse), "exact McNemar", better, worse


def _gain(
    differences: Array, p: float, test: str, better: Any, worse: Any, corrected: float, tests: int
) -> Gain:
    error = float(differences[1:].std())
    return Gain(
        *_interval(differences),
        p=p,
        corrected=corrected,
        test=test,
        better=better,
        worse=worse,
        detectable=rounded(_reach(tests) * error) if error > 1e-12 else None,
    )


def _reach(tests: int) -> float:
    """Standard errors between 0 and a difference that is found with `POWER`, at `LEVEL` over all tests."""
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / (2 * tests)) + normal.inv_cdf(POWER)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number m (Holm 1979): the k-th smallest times m - k + 1, never falling."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = highest
    return corrected


def fewest_rows(tests: int) -> int:
    """Rows that must differ, all to one side, before an exact McNemar test can speak: 2 / 2^k <= level."""
    rows = 1
    while 2 * 0.5**rows > LEVEL / tests:
        rows += 1
    return rows
