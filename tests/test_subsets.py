"""maj@k against every subset really voted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.subsets import Sets, majority, sizes
from workflow.voting import Ties, vote

ANSWERS = st.lists(st.sampled_from(["A", "B", "C", "D", None]), min_size=1, max_size=7)
RIGHT = st.sets(st.sampled_from("ABCD"), min_size=1, max_size=2)


def naive(
    answers: Sequence[str | None], weights: Sequence[Fraction], right: set[str], abstain: bool
) -> list[Fraction]:
    """Of each size, the mean over subsets; counted with fractions, a tie shared among the tied."""
    found = []
    for k in range(1, len(answers) + 1):
        shares = []
        for chosen in combinations(range(len(answers)), k):
            sums: Counter[str] = Counter()
            for place in chosen:
                if (answer := answers[place]) is not None:
                    sums[answer] += weights[place]  # type: ignore[assignment]
            best = [name for name, total in sums.items() if total == max(sums.values())]
            if best and not (abstain and len(best) > 1):
                shares.append(Fraction(sum(name in right for name in best), len(best)))
            else:
                shares.append(Fraction(0))
        found.append(sum(shares, Fraction(0)) / len(shares))
    return found


@settings(max_examples=40, deadline=None)
@given(ANSWERS, RIGHT, st.booleans())
def test_majority_is_the_mean_over_all_subsets(
    answers: list[str | None], right: set[str], abstain: bool
) -> None:
    expected = naive(answers, [Fraction(1)] * len(answers), right, abstain)
    result = vote(answers, Ties("first"))
    exact = majority(result.votes, result.abstentions, right, abstain)
    assert exact == pytest.approx([float(share) for share in expected], abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(ANSWERS, RIGHT, st.booleans(), st.data())
def test_enumerated_is_the_mean_over_all_subsets(
    answers: list[str | None], right: set[str], abstain: bool, data: st.DataObject
) -> None:
    tenths = data.draw(st.lists(st.integers(1, 5), min_size=len(answers), max_size=len(answers)))
    sets = Sets(len(answers))
    assert not sets.sampled
    found = sets.weighted(answers, [w / 10 for w in tenths], right, abstain)
    expected = naive(answers, [Fraction(w, 10) for w in tenths], right, abstain)
    assert found == pytest.approx([float(share) for share in expected], abs=1e-12)


@settings(deadline=None)
@given(ANSWERS, RIGHT)
def test_the_whole_set_is_the_vote(answers: list[str | None], right: set[str]) -> None:
    result = vote(answers, Ties("abstain"))
    last = majority(result.votes, result.abstentions, right, abstain=True)[-1]
    assert last == float(result.answer in right)


def test_sampled_comes_near_exact() -> None:
    answers = [*"AAAABBBCCD", None, None, *"ABCD"]
    votes = {name: answers.count(name) for name in "ABCD"}
    exact = majority(votes, 2, {"A"}, abstain=False)
    sets = Sets(16)
    assert sets.sampled
    found = sets.weighted(answers, [0.3] * 16, {"A"}, abstain=False)
    for k, share in zip(sets.sizes, found, strict=True):
        assert share == pytest.approx(exact[k - 1], abs=0.15)
    assert (found[0], found[-1]) == pytest.approx((exact[0], exact[-1]))
    assert np.array_equal(found, Sets(16).weighted(answers, [0.3] * 16, {"A"}, abstain=False))


def test_many_draws_are_exact_still() -> None:
    votes = {"A": 100, **{f"other {i}": 1 for i in range(100)}}
    curve = majority(votes, 56, {"A"}, abstain=False)
    assert curve[0] == pytest.approx(100 / 256)
    assert curve[-1] == 1
    assert np.all(np.diff(curve[::2]) > -1e-12)


def test_nobody_right_is_never_right() -> None:
    assert majority({"A": 2}, 1, {"B"}, abstain=False).tolist() == [0, 0, 0]
    assert majority({}, 3, {"B"}, abstain=False).tolist() == [0, 0, 0]
    assert Sets(2).weighted([None, "A"], [1, 1], {"B"}, abstain=False).tolist() == [0, 0]


def test_sizes_begin_with_one_and_end_with_all() -> None:
    assert sizes(7) == [1, 2, 3, 4, 5, 6, 7]
    assert (sizes(256)[0], sizes(256)[-1]) == (1, 256)
    assert len(sizes(256)) <= 20
