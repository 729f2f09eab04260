"""Paired comparisons: figures against naive ones and scipy, corrections, and what so few rows can tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from workflow.errors import BuildError
from workflow.pairing import Compared, compare, fewest_rows, holm

Values = dict[str, dict[str, dict[str, float]]]


def write(root: Path, arms: dict[str, Values], groups: dict[str, str] | None = None) -> dict[str, Path]:
    """Arm -> its items.jsonl; `arms` has row -> metric -> system -> value."""
    files = {}
    for arm, rows in arms.items():
        files[arm] = root / f"{arm}.jsonl"
        lines = [
            json.dumps({"id": id, "group": (groups or {}).get(id), "values": rows[id]}) + "\n"
            for id in sorted(rows)
        ]
        files[arm].write_text("".join(lines))
    return files


def column(metric: str, values: Any, system: str = "greedy") -> Values:
    return {f"{i:04}": {metric: {system: float(value)}} for i, value in enumerate(values)}


def one(files: dict[str, Path], metric: str, resamples: int = 2000, weigh: str | None = None) -> Compared:
    (found,) = compare(files, [metric], weigh, resamples, 0).compared
    return found


def test_differences_of_texts(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    first = random.random(200)
    other = np.clip(first + random.normal(0.05, 0.1, 200), 0, 1)
    found = one(
        write(tmp_path, {"a": column("rouge1", first), "b": column("rouge1", other)}), "rouge1", 20000
    )
    gain, difference = found.gains["b"], other - first
    error = difference.std(ddof=1) / 200**0.5
    assert found.figures["a"].value == pytest.approx(first.mean())
    assert gain.difference == pytest.approx(difference.mean())
    assert (gain.low, gain.high) == pytest.approx(
        (difference.mean() - 1.96 * error, difference.mean() + 1.96 * error), abs=error / 10
    )
    assert gain.detectable == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error, rel=0.03)
    assert (gain.test, gain.better, gain.worse, gain.shown) == ("paired bootstrap", None, None, True)
    assert gain.p == gain.corrected < 0.001


def test_right_and_wrong_are_tested_by_mcnemar(tmp_path: Path) -> None:
    first, other = [1] * 30 + [0] * 20, [1] * 28 + [0] * 2 + [1] * 11 + [0] * 9
    gain = one(
        write(tmp_path, {"a": column("accuracy", first), "b": column("accuracy", other)}), "accuracy"
    ).gains["b"]
    assert (gain.better, gain.worse, gain.test) == (11, 2, "exact McNemar")
    assert gain.p == pytest.approx(binomtest(2, 13).pvalue)


def test_rows_of_one_problem_are_resampled_together(tmp_path: Path) -> None:
    """Three equal rows of a problem say no more than one: the interval is as wide, McNemar does not apply."""
    random = np.random.default_rng(1)
    first, other = random.integers(0, 2, 40), random.integers(0, 2, 40)
    groups = {f"{i:04}": f"p{i // 3:03}" for i in range(120)}
    alone = one(write(tmp_path, {"a": column("accuracy", first), "b": column("accuracy", other)}), "accuracy")
    files = write(
        tmp_path, {"a": column("accuracy", first.repeat(3)), "b": column("accuracy", other.repeat(3))}, groups
    )
    found = one(files, "accuracy")
    assert (found.rows, found.problems, alone.rows) == (120, 40, 40)
    assert (found.gains["b"].low, found.gains["b"].high) == (alone.gains["b"].low, alone.gains["b"].high)
    assert found.gains["b"].test == "paired bootstrap"


def test_problems_of_different_sizes(tmp_path: Path) -> None:
    groups = {"0000": "p", "0001": "p", "0002": "p"}
    files = write(
        tmp_path, {"a": column("rouge1", [1, 1, 1, 0]), "b": column("rouge1", [0, 0, 0, 0])}, groups
    )
    assert one(files, "rouge1").figures["a"].value == 0.5
    assert one(files, "rouge1", weigh="rows").figures["a"].value == 0.75
    files = write(tmp_path, {"a": column("accuracy", [1, 1, 1, 0]), "b": column("accuracy", [0] * 4)}, groups)
    assert one(files, "accuracy").figures["a"].value == 0.75


def test_a_group_is_not_a_row_of_the_same_name(tmp_path: Path) -> None:
    files = write(tmp_path, {"a": column("rouge1", [1, 0]), "b": column("rouge1", [0, 0])}, {"0000": "0001"})
    assert one(files, "rouge1").problems == 2


def test_rows_are_paired_by_id_and_those_of_one_arm_counted(tmp_path: Path) -> None:
    first, other = column("rouge1", [0.1, 0.2, 0.3]), column("rouge1", [0.9, 0.2, 0.3, 0.4])
    del first["0000"]
    found = compare(write(tmp_path, {"a": first, "b": other}), ["rouge1"], None, 100, 0)
    assert found.unpaired == {"a": 0, "b": 2}
    assert found.compared[0].rows == 2 and found.compared[0].gains["b"].difference == 0
    del first["0001"], first["0002"]
    with pytest.raises(BuildError, match="a, b: no test row is scored in all of them"):
        compare(write(tmp_path, {"a": first, "b": other}), ["rouge1"], None, 100, 0)


def test_systems_and_metrics_that_all_arms_have(tmp_path: Path) -> None:
    both = {"greedy": 1.0, "voted": 0.5, "base": 0.0}
    arms = {
        "a": {"1": {"accuracy": both, "rouge1": {"greedy": 1.0}, "mine": {"greedy": 1.0}}},
        "b": {"1": {"accuracy": {"greedy": 1.0, "voted": 0.0}, "rouge1": {"greedy": 0.0}}},
    }
    found = compare(write(tmp_path, arms), ["rouge1", "accuracy", "mine"], None, 100, 0)
    systems = [(compared.metric, compared.system) for compared in found.compared]
    assert systems == [("rouge1", "greedy"), ("accuracy", "voted"), ("accuracy", "greedy")]
    assert [compared.system for compared in found.headlines] == ["greedy", "voted"]
    with pytest.raises(BuildError, match="a, b: of mine none has values row by row in all of them"):
        compare(write(tmp_path, arms), ["mine"], None, 100, 0)


def test_an_arm_more_changes_no_figure_but_the_correction(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    arms = {name: column("rouge1", random.random(30)) for name in "abc"}
    three, two = (one(write(tmp_path, {n: arms[n] for n in names}), "rouge1") for names in ("abc", "ab"))
    assert three.figures["b"] == two.figures["b"]
    assert (three.gains["b"].p, three.gains["b"].low) == (two.gains["b"].p, two.gains["b"].low)
    assert three.gains["b"].corrected > two.gains["b"].corrected == two.gains["b"].p
    assert three.gains["b"].detectable > two.gains["b"].detectable  # type: ignore[operator]


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # Holm 1979, by hand
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_arms_tell_of_no_smallest_difference(tmp_path: Path) -> None:
    values = column("accuracy", [1, 0, 1])
    gain = one(write(tmp_path, {"a": values, "b": values}), "accuracy").gains["b"]
    assert (gain.difference, gain.p, gain.detectable, gain.shown) == (0, 1, None, False)


@pytest.mark.parametrize("tests", [1, 2, 5])
def test_fewest_rows(tests: int) -> None:
    rows = fewest_rows(tests)
    assert binomtest(0, rows).pvalue <= 0.05 / tests < binomtest(0, rows - 1).pvalue
