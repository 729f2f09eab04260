"""Intervals and paired tests against exact sums and scipy."""

from __future__ import annotations

import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow import significance


def exact_mcnemar(better: int, worse: int) -> Fraction:
    m, k = better + worse, min(better, worse)
    return min(Fraction(1), 2 * Fraction(sum(math.comb(m, i) for i in range(k + 1)), 2**m))


@given(st.integers(0, 150), st.integers(0, 150))
def test_mcnemar_equals_the_sum_in_whole_numbers(better: int, worse: int) -> None:
    exact = float(exact_mcnemar(better, worse))
    assert significance.mcnemar(better, worse) == pytest.approx(exact, rel=1e-11)
    assert significance.mcnemar(better, worse) == significance.mcnemar(worse, better)


def test_mcnemar_equals_scipy_where_numbers_are_large() -> None:
    stats = pytest.importorskip("scipy.stats")
    for better, worse in ((5100, 4900), (50_300, 50_000), (500_000, 498_000), (1000, 10)):
        exact = stats.binomtest(better, better + worse).pvalue
        assert significance.mcnemar(better, worse) == pytest.approx(exact, rel=1e-7)
    assert (
        significance.mcnemar(0, 0)
        == significance.mcnemar(1, 0)
        == significance.mcnemar(3, 3)
        == significance.mcnemar(2, 3)
        == 1
    )
    assert significance.mcnemar(100_000, 0) == 0.0


def test_bootstrap_of_right_and_wrong_is_binomial() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = significance.bootstrap({(1, 1): 943, (0, 1): 385}, 200_000, 0)
    low, high = np.quantile(drawn, [0.025, 0.975]) * 1328
    expected = stats.binom.ppf([0.025, 0.975], 1328, 943 / 1328)
    assert (low, high) == pytest.approx(expected, abs=1)


def test_bootstrap_is_seeded_and_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    right = {(0, 1): 40, (1, 1): 30, (2, 1): 20, (3, 1): 10, (4, 1): 0}
    whole = significance.bootstrap(right, 1000, 5)
    assert (significance.bootstrap(dict(reversed(right.items())), 1000, 5) == whole).all()
    assert (significance.bootstrap(right, 1000, 6) != whole).any()
    monkeypatch.setattr(significance, "CELLS", 28)
    assert (significance.bootstrap(right, 1000, 5) == whole).all()


def test_bootstrap_of_a_ratio_is_that_of_really_resampled_problems() -> None:
    chance = np.random.default_rng(1)
    rows = chance.integers(1, 6, 150)
    right = chance.binomial(rows, chance.beta(1, 1, 150))
    drawn = significance.bootstrap(Counter(zip(right.tolist(), rows.tolist(), strict=True)), 20_000, 0)
    places = chance.integers(0, 150, (20_000, 150))
    expected = right[places].sum(axis=1) / rows[places].sum(axis=1)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx(
        np.quantile(expected, [0.025, 0.975]), abs=0.004
    )
    assert drawn.mean() == pytest.approx(right.sum() / rows.sum(), abs=0.003)


def test_bootstrap_of_a_million_rows_takes_no_time() -> None:
    began = time.process_time()
    rows = {(0, 3): 300_000, (1, 3): 200_000, (2, 3): 250_000, (3, 3): 250_000}
    low, high = np.quantile(significance.bootstrap(rows, 10_000, 0), [0.025, 0.975])
    assert 0 < low < 1_450_000 / 3_000_000 < high
    assert time.process_time() - began < 1
