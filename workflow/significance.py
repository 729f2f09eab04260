"""Intervals and paired tests: how sure a figure is, and a difference of two.

Seeds are given, so the same counts have the same intervals everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.results import TextTest

CELLS = 1 << 22
"""Bootstrap counts held at once: 32 MiB of int64."""
EXACT = 1e-12
"""Differences as small are none: what sums of equal numbers in another order may be apart."""


def bootstrap(right: Mapping[int, int], resamples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the number of right answers (Efron & Tibshirani 1993, 13.3).

    Resampling n rows with replacement matters to the sum only through how often each distinct value is
    taken, and these counts are Multinomial(n, share of each value): drawing them is exact, not an
    approximation, and costs as many numbers as there are values (2 for right or wrong), not n.
    Every system starts the generator (PCG64) from `seed`: equal counts have equal intervals, and
    a system more or less changes no other.

    Args:
        right: Right answers in a row -> number of such rows.
        resamples: Bootstrap resamples.
        seed: Seed of the generator.

    Returns:
        The 2.5 % and 97.5 % quantiles (linear between order statistics), in right answers.
    """
    values = np.array(sorted(value for value, rows in right.items() if rows))
    rows = np.array([right[int(value)] for value in values])
    n, generator = int(rows.sum()), np.random.Generator(np.random.PCG64(seed))
    sums = np.empty(resamples, dtype=np.int64)
    block = max(1, CELLS // len(values))
    for start in range(0, resamples, block):
        part = sums[start : start + block]
        part[:] = generator.multinomial(n, rows / n, size=len(part)) @ values
    low, high = np.quantile(sums, [0.025, 0.975])
    return float(low), float(high)


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p value of McNemar's test (McNemar 1947; exact form: Fagerland et al. 2013,
    BMC Med Res Methodol 13:91).

    Of m rows on which two systems differ, the number that favours one is Binomial(m, 1/2) if they are
    equally good: p = min(1, 2 P(X <= min(better, worse))). Summed from the largest term down, where each
    is the next times k / (m - k + 1), until terms no longer count: about sqrt(m) terms.
    """
    m, k = better + worse, min(better, worse)
    if 2 * k == m:
        return 1.0
    log_term = math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1) - m * math.log(2)
    total = term = 1.0
    while k > 0 and term > 1e-17 * total:
        term *= k / (m - k + 1)
        total += term
        k -= 1
    return min(1.0, 2 * math.exp(log_term) * total)


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
        difference=rounded(differences.mean()),
        low=rounded(np.quantile(means, 0.025)),
        high=rounded(np.quantile(means, 0.975)),
        p=min(1.0, 2 * (min(sides) + 1) / (b + 1)),  # + 1: never 0 (Davison & Hinkley 1997, 4.2.1)
    )


def rounded(value: Any) -> float:
    """To nine digits behind the point: sums may differ in the last bit between two processors."""
    return round(float(value), 9) + 0.0
