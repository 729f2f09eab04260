"""Several voters in one job of `voted`: who they are, what they weigh, and that they answer the same rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_voted import SLICE, lines, prediction, row, write

from workflow.curves import read_curves
from workflow.errors import BuildError
from workflow.products import voted
from workflow.store.build import Job


def job(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    voters: dict[str, dict[str, str]],
    others: dict[str, list[dict[str, Any]]] | None = None,
    weighing: tuple[list[dict[str, Any]], dict[str, dict[str, str]]] | None = None,
    **changes: Any,
) -> Job:
    """Voter -> row id -> letters of its draws; `others`: role -> other rows."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    inputs = {"rows": write(tmp_path / "rows", "rows.jsonl", rows)}
    both = [("voter", voters), *([("weighed", weighing[1])] if weighing else [])]
    for before, answers in both:
        for name, letters in answers.items():
            folder = tmp_path / f"{before} {name}".replace("/", "_")
            drawn = [prediction(id, given) for id, given in letters.items()]
            inputs[f"{before} {name}"] = write(folder, "predictions.jsonl", drawn)
    for role, found in (others or {}).items():
        inputs[role] = write(tmp_path / role, "rows.jsonl", found)
    if weighing:
        inputs["weighing rows"] = write(tmp_path / "weighing", "rows.jsonl", weighing[0])
    (tmp_path / "out").mkdir(exist_ok=True)
    return Job({**SLICE, **changes}, inputs, {}, tmp_path / "out", tmp_path, tmp_path)


def answers(tmp_path: Path) -> list[str | None]:
    return [line["answer"] for line in lines(tmp_path / "out/voted.jsonl")]


def test_all_draws_of_all_voters_count(tmp_path: Path) -> None:
    given = {"own": {"a": "AB", "b": "CC"}, "short": {"a": "BB", "b": "DD"}, "x/short": {"a": "-", "b": "D"}}
    counts = voted.make(job(tmp_path, [row("a"), row("b", "D")], given, members=["x"]))
    found = lines(tmp_path / "out/voted.jsonl")
    assert [line["votes"] for line in found] == [{"A": 1, "B": 3}, {"C": 2, "D": 3}]
    assert (found[0]["abstentions"], found[0]["weights"]) == (1, None)
    assert (counts["draws"], counts["voters"]) == (5, {"own": 2, "short": 2, "x/short": 1})
    assert "weights" not in counts


def test_ties_go_to_own_then_variants_then_members_as_listed(tmp_path: Path) -> None:
    every = {"z": "A", "b": "B", "b/v": "C", "own": "D"}
    for left, first in enumerate("DABC"):
        given = {n: {"r": a} for n, a in sorted(every.items(), key=lambda one: "DABC".index(one[1]))[left:]}
        voted.make(job(tmp_path / f"{left}", [row("r")], given, members=["b", "c"]))
        assert answers(tmp_path / f"{left}") == [first]


def test_given_weights(tmp_path: Path) -> None:
    given = {"own": {"a": "AA"}, "short": {"a": "B"}, "x": {"a": "C"}}
    chosen = {"rule": "weighted", "weights": {"short": 2.5}, "members": ["x"]}
    counts = voted.make(job(tmp_path, [row("a")], given, **chosen))
    line = lines(tmp_path / "out/voted.jsonl")[0]
    assert (line["answer"], line["votes"]) == ("B", {"A": 2, "B": 1, "C": 1})
    assert line["weights"] == {"A": 2.0, "B": 2.5, "C": 1.0}
    assert line["agreement"] == pytest.approx(2.5 / 5.5)
    assert counts["weights"] == {"own": 1.0, "short": 2.5, "x": 1.0}


def test_weights_of_validation_accuracy(tmp_path: Path) -> None:
    held = [row("v1", question="v1"), row("v2", "B", question="v2"), row("v3", None, question="v3")]
    drawn = {
        "own": {"v1": "AB", "v2": "AA", "v3": "AA"},  # 1 of 4
        "x": {"v1": "A", "v2": "B", "v3": "C"},  # 2 of 2
    }
    chosen = {"rule": "weighted", "weights": "accuracy", "members": ["x"]}
    given = {"own": {"a": "CC"}, "x": {"a": "D"}}
    counts = voted.make(job(tmp_path, [row("a")], given, weighing=(held, drawn), **chosen))
    assert counts["weights"] == {"own": pytest.approx(2 / 6), "x": pytest.approx(3 / 4)}
    line = lines(tmp_path / "out/voted.jsonl")[0]
    assert line["answer"] == "D"
    assert line["weights"] == {"C": pytest.approx(4 / 6), "D": pytest.approx(3 / 4)}


def test_rows_that_are_tested_on_weigh_nobody(tmp_path: Path) -> None:
    chosen = {"rule": "weighted", "weights": "accuracy"}
    given = {"own": {"a": "A"}}
    made = job(tmp_path, [row("a")], given, weighing=([row("v")], {"own": {"v": "A"}}), **chosen)
    with pytest.raises(BuildError, match="row 'a' is tested on, and dataset.validation has the same"):
        voted.make(made)
    unknown = [row("v", None, question="v")]
    made = job(tmp_path, [row("a")], given, weighing=(unknown, {"own": {"v": "A"}}), **chosen)
    with pytest.raises(BuildError, match="no row has a known answer; nobody can be weighed by it"):
        voted.make(made)


def test_weights_of_log_probability(tmp_path: Path) -> None:
    made = job(tmp_path, [row("a")], {"own": {"a": "AAB"}}, rule="weighted", weights="logprob")
    path = tmp_path / "voter own/predictions.jsonl"
    record = json.loads(path.read_text())
    with pytest.raises(BuildError, match="row 'a': a draw has no log-probability; set sampling.logprobs"):
        voted.make(made)
    for draw, logprob in zip(record["draws"], (-2.0, -3.0, -0.5), strict=True):
        draw["logprob"] = logprob
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n")
    counts = voted.make(made)
    line = lines(tmp_path / "out/voted.jsonl")[0]
    assert line["answer"] == "B"
    assert line["weights"] == {
        "A": pytest.approx(math.exp(-2) + math.exp(-3)),
        "B": pytest.approx(math.exp(-0.5)),
    }
    assert "weights" not in counts


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        (row("a", question="q"), False),
        (row("a", question="said otherwise"), False),  # the known answer is the same
        (row("a", "B", question="said otherwise"), True),
        (row("a", None, question="said otherwise"), True),
        (row("b"), True),
    ],
)
def test_members_must_answer_the_same_rows(tmp_path: Path, other: dict[str, Any], refused: bool) -> None:
    given = {"own": {"a": "A"}, "x": {"a": "A"}}
    made = job(tmp_path, [row("a")], given, {"rows of x": [other]}, members=["x"])
    if refused:
        with pytest.raises(BuildError, match=r"row 'a' is another one here|nothing about row 'a'"):
            voted.make(made)
    else:
        voted.make(made)


def test_a_voter_that_lacks_a_row_or_a_draw(tmp_path: Path) -> None:
    rows = [row("a"), row("b")]
    with pytest.raises(BuildError, match=r"voter x.predictions\.jsonl: nothing about row 'b'"):
        voted.make(job(tmp_path / "1", rows, {"own": {"a": "A", "b": "A"}, "x": {"a": "A"}}, members=["x"]))
    given = {"own": {"a": "A", "b": "A"}, "x": {"a": "AA", "b": "A"}}
    with pytest.raises(BuildError, match=r"voter x.predictions\.jsonl: row 'b' has 1 draws, not 2"):
        voted.make(job(tmp_path / "2", rows, given, members=["x"]))


def test_curves_say_who_helps(tmp_path: Path) -> None:
    """`good` is always right, `bad` never; own is right on every other row."""
    ids = [f"r{i:02d}" for i in range(20)]
    given = {
        "own": {id: "A" if i % 2 else "B" for i, id in enumerate(ids)},
        "bad": dict.fromkeys(ids, "B"),
        "good": dict.fromkeys(ids, "A"),
    }
    voted.make(job(tmp_path, [row(id) for id in ids], given, ties="abstain", members=["bad", "good"]))
    curves = read_curves(tmp_path / "out")
    assert curves
    assert (curves.rows, curves.problems, curves.draws, curves.method) == (20, 20, 3, "exact")
    gains = {voter.name: voter.gain for voter in curves.voters}
    # Of 20 rows 10 are right. Without own all tie; without bad 10 are right, without good none is.
    assert gains == {"own": 0.5, "bad": 0.0, "good": 0.5}
    assert [voter.accuracy for voter in curves.voters] == [0.5, 0, 1]
    assert [point.accuracy for point in curves.points] == [0.5, pytest.approx(1 / 6), 0.5]
    assert all(point.low <= point.accuracy <= point.high for point in curves.points)
    assert curves.points[-1].low < 0.4 < 0.6 < curves.points[-1].high


def test_intervals_resample_problems(tmp_path: Path) -> None:
    """Ten rows of one problem are one thing seen, so the interval of two problems is all there is."""
    rows = [{**row(f"r{i:02d}"), "group": f"p{i // 10}"} for i in range(20)]
    given = {"own": {one["id"]: "A" if one["group"] == "p0" else "B" for one in rows}}
    for one in rows:
        one["index"] = None
    voted.make(job(tmp_path, rows, given))
    curves = read_curves(tmp_path / "out")
    assert curves and curves.problems == 2
    assert (curves.points[0].low, curves.points[0].accuracy, curves.points[0].high) == (0, 0.5, 1)


def test_weighted_curves_say_how_they_were_found(tmp_path: Path) -> None:
    for draws, method, subsets in ((3, "enumerated", None), (12, "sampled", 100)):
        place = tmp_path / method
        given = {"own": {"a": "A" * draws}, "x": {"a": "B" * draws}}
        chosen = {"rule": "weighted", "weights": {"x": 2}, "members": ["x"]}
        voted.make(job(place, [row("a")], given, **chosen))
        curves = read_curves(place / "out")
        assert curves
        assert (curves.method, curves.subsets, curves.points[-1].accuracy) == (method, subsets, 0)


def test_without_gold_there_are_no_curves(tmp_path: Path) -> None:
    voted.make(job(tmp_path, [row("a", None)], {"own": {"a": "A"}}))
    assert read_curves(tmp_path / "out") is None
    (tmp_path / "out/curves.json").write_text("{}")
    with pytest.raises(BuildError, match=r"curves\.json: missing or damaged"):
        read_curves(tmp_path / "out")
