"""Intervals and paired tests: how sure a figure is, and a difference of two.

Seeds are given, so the same counts have the same intervals everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workflow.measures import TextTest

CELLS = 1 << 22
"""Bootstrap counts held at once: 32 MiB of int64."""
EXACT = 1e-12
"""Differences as small are none: what sums of equal numbers in another order may be apart."""


def bootstrap(problems: Mapping[tuple[float, float], int], resamples: int, seed: int) -> NDArray[np.float64]:
    """A ratio of two sums over problems drawn with replacement (Efron & Tibshirani 1993, 13.3).

    Resampling n problems matters to the sums only through how often each distinct pair is taken, and these
    counts are Multinomial(n, share of each pair): drawing them is exact, not an approximation, and costs as
    many numbers as there are pairs (2 for right or wrong), not n.
    Every system starts the generator (PCG64) from `seed`: equal counts have equal intervals, and
    a system more or less changes no other.

    Args:
        problems: What a problem adds to the upper and to the lower sum -> number of such problems.
        resamples: Bootstrap resamples.
        seed: Seed of the generator.

    Returns:
        [resamples]
    """
    pairs = np.array(sorted(pair for pair, count in problems.items() if count), dtype=float)
    counts = np.array([problems[upper, lower] for upper, lower in pairs.tolist()])
    n, generator = int(counts.sum()), np.random.Generator(np.random.PCG64(seed))
    ratios = np.empty(resamples)
    block = max(1, CELLS // len(pairs))
    for start in range(0, resamples, block):
        part = ratios[start : start + block]
        upper, lower = (generator.multinomial(n, counts / n, size=len(part)) @ pairs).T
        part[:] = upper / lower
    return ratios


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


def resampled(values: NDArray[np.float64], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Sums of each column over rows drawn with replacement (Efron & Tibshirani 1993, 13.3).

    All columns see the same draws: differences of columns are paired, equal columns have equal sums, and
    a column more changes no other.

    Args:
        values: [rows, columns].
        resamples: How often.
        seed: Seed of the generator (PCG64).

    Yields:
        Blocks of [some resamples, columns].
    """
    n, generator = len(values), np.random.Generator(np.random.PCG64(seed))
    block = max(1, CELLS // n)
    for start in range(0, resamples, block):
        times = min(block, resamples - start)
        counts = [np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(times)]
        yield np.stack(counts).astype(float) @ values


def paired(difference: float, resamples: NDArray[np.float64]) -> TextTest:
    """Paired bootstrap test (Koehn 2004), two-sided: twice the smaller share of resamples on one side of 0.

    Args:
        difference: Of the two figures.
        resamples: The same in each resample.
    """
    sides = [int((resamples <= EXACT).sum()), int((resamples >= -EXACT).sum())]
    return TextTest(
        difference=rounded(difference),
        low=rounded(np.quantile(resamples, 0.025)),
        high=rounded(np.quantile(resamples, 0.975)),
        p=min(1.0, 2 * (min(sides) + 1) / (len(resamples) + 1)),  # never 0 (Davison & Hinkley 1997, 4.2.1)
    )


def rounded(value: Any) -> float:
    """To nine digits behind the point: sums may differ in the last bit between two processors."""
    return round(float(value), 9) + 0.0
