"""The product scores: every figure against a short naive computation of its own."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_significance import exact_mcnemar

from workflow.accuracy import Accuracy, Figures, Rates
from workflow.errors import BuildError
from workflow.products import scores, voted
from workflow.recipe.answers import Scoring
from workflow.recipe.leaf import slice_of
from workflow.results import AskedRow, Item, Prediction, Scores
from workflow.schemas import check
from workflow.score_tally import Tally
from workflow.store.build import Job
from workflow.text_scores import TextTally
from workflow.vote_curves import VoteCurves
from workflow.voters import Ballot
from workflow.voting import Reader, Ties, vote

ANSWER = {"pattern": "答案是：([A-G])", "match": "last"}
SLICE = slice_of(Scoring(compare=["base"], resamples=2000, seed=7), "scores") | {"answer": ANSWER}
LETTERS = "ABCD"


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path.parent


def prediction(id: str, answers: str, chance: random.Random) -> dict[str, Any]:
    draws = [
        {
            "text": "?" if a == "-" else f"答案是：A……答案是：{a}",
            "finish_reason": chance.choice(["stop", "stop", "length"]),
        }
        for a in answers
    ]
    return {"id": id, "draws": draws}


def answers(gold: str, skill: float, count: int, chance: random.Random) -> str:
    return "".join(gold if chance.random() < skill else chance.choice([*LETTERS, "-"]) for _ in range(count))


def build(
    tmp_path: Path, count: int = 60, draws: int = 3, unscored: float = 0.2, seed: int = 3, **change: Any
) -> Job:
    """A job whose rows are answered at random, `voted` really voted."""
    chance = random.Random(seed)
    golds = [chance.choice("AABCD") for _ in range(count)]
    ids = [f"row{number:04d}" for number in range(count)]
    also = {"A": "DA", "B": "BB"}  # some rows accept two answers, some say one twice
    rows = [
        {
            "id": id,
            "prompt": {"options": list(LETTERS)},
            "gold": [] if chance.random() < unscored else list(also.get(gold, gold) if i % 3 else gold),
        }
        for i, (id, gold) in enumerate(zip(ids, golds, strict=True))
    ]
    inputs = {"rows": write(tmp_path / "rows/rows.jsonl", rows)}
    for role, skill, number in (("draws", 0.5, draws), ("greedy", 0.6, 1), ("base", 0.3, 1)):
        made = [
            prediction(id, answers(g, skill, number, chance), chance)
            for id, g in zip(ids, golds, strict=True)
        ]
        inputs[role] = write(tmp_path / role / "predictions.jsonl", made)
    (tmp_path / "voted").mkdir()
    (tmp_path / "out").mkdir()
    rule = {"answer": ANSWER, "members": [], "weights": None, "ties": "first", "seed": None}
    voted.make(
        Job(
            rule,
            {"rows": inputs["rows"], "voter own": inputs["draws"]},
            {},
            tmp_path / "voted",
            tmp_path,
            tmp_path,
        )
    )
    return Job(
        {**SLICE, **change}, {**inputs, "voted": tmp_path / "voted"}, {}, tmp_path / "out", tmp_path, tmp_path
    )


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def naive_answer(text: str) -> str | None:
    found = re.findall("答案是：([A-G])", text)
    return found[-1] if found and found[-1] in LETTERS else None


def naive_vote(read: list[str | None]) -> str | None:
    valid = [answer for answer in read if answer]
    return max(valid, key=lambda answer: (valid.count(answer), -valid.index(answer)), default=None)


def naive(job: Job) -> dict[str, Any]:
    """Per system: share right of each scored row, share parsed, share cut; straight from the texts."""
    golds = {row["id"]: row["gold"] for row in lines(job.inputs["rows"] / "rows.jsonl") if row["gold"]}
    texts = {
        role: {
            line["id"]: line["draws"]
            for line in lines(job.inputs[role] / "predictions.jsonl")
            if line["id"] in golds
        }
        for role in ("draws", "greedy", "base")
    }
    texts["single"] = {id: draws[:1] for id, draws in texts["draws"].items()}
    found: dict[str, Any] = {}
    for role, predicted in texts.items():
        read = {id: [naive_answer(draw["text"]) for draw in draws] for id, draws in predicted.items()}
        flat = [answer for given in read.values() for answer in given]
        found[role] = {
            "rows": [sum(answer in golds[id] for answer in given) / len(given) for id, given in read.items()],
            "parse_rate": sum(answer is not None for answer in flat) / len(flat),
            "length_rate": sum(d["finish_reason"] == "length" for ds in predicted.values() for d in ds)
            / len(flat),
        }
        if role == "draws":
            winners = {id: naive_vote(given) for id, given in read.items()}
    found["voted"] = {
        "rows": [float(winners[id] in gold) for id, gold in golds.items()],
        "parse_rate": sum(winner is not None for winner in winners.values()) / len(winners),
        "length_rate": found["draws"]["length_rate"],
    }
    common = Counter(answer for gold in golds.values() for answer in set(gold)).most_common(1)[0][0]
    baseline = [float(common in gold) for gold in golds.values()]
    found["majority_class"] = {"rows": baseline, "parse_rate": None, "length_rate": None}
    return found


def naive_interval(rows: list[float]) -> tuple[float, float]:
    """Rows really resampled."""
    generator, values = np.random.default_rng(1), np.array(rows)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(20000)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_every_figure_is_what_a_naive_script_finds(tmp_path: Path) -> None:
    job = build(tmp_path, resamples=20000)
    counts = scores.make(job)
    written = json.loads((tmp_path / "out/scores.json").read_text(encoding="utf-8"))
    Scores.model_validate(check("scores", written, "test"))
    expected = naive(job)
    n = len(expected["voted"]["rows"])
    assert counts == {"rows": 60, "scored": n, "draws": 3} == {key: written[key] for key in counts}
    assert 0 < n < 60
    assert written["systems"].keys() == expected.keys()
    for name, system in written["systems"].items():
        own = expected[name]
        assert system["n"] == n
        assert system["accuracy"] == pytest.approx(sum(own["rows"]) / n, abs=1e-12), name
        assert (system["parse_rate"], system["length_rate"]) == pytest.approx(
            (own["parse_rate"], own["length_rate"])
        )
        # One row is 1/n; a quantile of 20,000 resamples may come to lie one step of the grid away.
        step = 1 / n / (3 if name == "draws" else 1)
        assert (system["low"], system["high"]) == pytest.approx(
            naive_interval(own["rows"]), abs=1.01 * step
        ), name
    for name, test in written["tests"].items():
        one, other = (expected[system]["rows"] for system in name.split("_vs_"))
        better = sum(a > b for a, b in zip(one, other, strict=True))
        worse = sum(a < b for a, b in zip(one, other, strict=True))
        assert (test["better"], test["worse"]) == (better, worse)
        assert test["p"] == pytest.approx(float(exact_mcnemar(better, worse)), rel=1e-12)
        assert test["difference"] == pytest.approx((better - worse) / n)
        differences = [a - b for a, b in zip(one, other, strict=True)]
        assert (test["low"], test["high"]) == pytest.approx(naive_interval(differences), abs=1.01 / n)
    assert set(written["tests"]) == {"greedy_vs_base", "voted_vs_single", "voted_vs_greedy"}


def test_items_are_what_a_naive_script_finds_of_each_row(tmp_path: Path) -> None:
    job = build(tmp_path)
    scores.make(job)
    items, expected = lines(tmp_path / "out/items.jsonl"), naive(job)
    ids = [row["id"] for row in lines(job.inputs["rows"] / "rows.jsonl") if row["gold"]]
    assert [item["id"] for item in items] == ids == sorted(ids)
    for place, item in enumerate(items):
        Item.model_validate(check("item", item, "test"), strict=True)
        wanted = {
            name: system["rows"][place] for name, system in expected.items() if name != "majority_class"
        }
        assert item["values"] == {"accuracy": pytest.approx(wanted)}


def test_file_is_canonical_and_the_same_twice(tmp_path: Path) -> None:
    job = build(tmp_path)
    scores.make(job)
    text = (tmp_path / "out/scores.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    scores.make(job)
    assert (tmp_path / "out/scores.json").read_text(encoding="utf-8") == text


def test_without_base_the_others_do_not_change(tmp_path: Path) -> None:
    job = build(tmp_path)
    scores.make(job)
    whole = json.loads((tmp_path / "out/scores.json").read_text())
    del job.inputs["base"]
    scores.make(job)
    less = json.loads((tmp_path / "out/scores.json").read_text())
    assert set(whole["systems"]) - set(less["systems"]) == {"base"}
    assert set(less["tests"]) == {"voted_vs_single", "voted_vs_greedy"}
    assert all(whole["systems"][name] == system for name, system in less["systems"].items())


def test_test_set_without_gold_has_no_scores_and_no_error(tmp_path: Path) -> None:
    counts = scores.make(build(tmp_path, unscored=1.1))
    written = json.loads((tmp_path / "out/scores.json").read_text())
    check("scores", written, "test")
    assert counts == {"rows": 60, "scored": 0, "draws": 3}
    assert (written["systems"], written["tests"], written["majority_answer"]) == ({}, {}, None)


def test_one_draw_votes_for_itself(tmp_path: Path) -> None:
    scores.make(build(tmp_path, draws=1))
    written = json.loads((tmp_path / "out/scores.json").read_text())
    assert written["systems"]["voted"] == written["systems"]["single"] == written["systems"]["draws"]
    none = {
        "better": 0,
        "worse": 0,
        "p": 1.0,
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
        "method": "mcnemar",
    }
    assert written["tests"]["voted_vs_single"] == none


@pytest.mark.parametrize("role", ["greedy", "base", "draws", "voted"])
def test_missing_row_is_named(tmp_path: Path, role: str) -> None:
    job = build(tmp_path)
    path = job.inputs[role] / ("voted.jsonl" if role == "voted" else "predictions.jsonl")
    kept = [line for line in lines(path) if line["id"] != "row0005"]
    write(path, kept)
    with pytest.raises(BuildError, match=f"{path.name}: nothing about row 'row0005'"):
        scores.make(job)


def change(path: Path, **fields: Any) -> None:
    first, *rest = lines(path)
    write(path, [{**first, **fields}, *rest])


def test_inputs_that_do_not_belong_together(tmp_path: Path) -> None:
    job = build(tmp_path, unscored=0)
    change(job.inputs["greedy"] / "predictions.jsonl", draws=[{"text": "", "finish_reason": "stop"}] * 2)
    with pytest.raises(BuildError, match=r"greedy/predictions\.jsonl: row 'row0000' has 2 draws, not 1"):
        scores.make(job)
    change(job.inputs["draws"] / "predictions.jsonl", draws=[{"text": "", "finish_reason": "stop"}] * 2)
    with pytest.raises(BuildError, match="voted from another number of draws"):
        scores.make(job)
    change(job.inputs["voted"] / "voted.jsonl", gold=["Z"])
    with pytest.raises(BuildError, match=r"gold is \['Z'\], in the rows"):
        scores.make(job)


def test_damaged_voted_line_is_named(tmp_path: Path) -> None:
    job = build(tmp_path)
    change(job.inputs["voted"] / "voted.jsonl", agreement=2)
    with pytest.raises(BuildError, match=r"voted\.jsonl:1: damaged \(agreement"):
        scores.make(job)


def test_majority_answer_of_equals_is_the_first_in_the_alphabet() -> None:
    counted = Accuracy(golds=Counter("CABAC"), single=Counter({(("voted", 1),): 5}))
    assert counted.majority_answer == "A"
    assert Counter({(right, rows): times for right, rows, times in counted.of_majority()}) == {
        (1, 1): 2,
        (0, 1): 3,
    }


def test_interval_of_a_perfect_system_is_a_point() -> None:
    counted = Accuracy(single=Counter({(("voted", 1),): 9}), rates={"voted": Rates(1, 1, 1, 1)})
    measured = Figures(counted, None, 100, 0).systems()["voted"]
    assert (measured.low, measured.accuracy, measured.high) == (1, 1, 1)


def test_voting_and_scoring_take_less_than_75_microseconds_a_row() -> None:
    """That is 200,000 rows of 3 draws in 7.5 s on two cores; the best of three tries, in processor time."""
    chance = random.Random(0)
    asked = AskedRow(id="r", prompt={"options": list(LETTERS)}, gold=["B"])
    texts = [prediction("r", answers("B", 0.5, 3, chance), chance) for _ in range(200)]
    predictions = [Prediction.model_validate(text) for text in texts]
    reader, seconds = Reader.of(ANSWER), []
    tally = Tally(TextTally([]), reader)
    curves = VoteCurves(SimpleNamespace(names=["own"]), Ties("first"))  # type: ignore[arg-type]
    for _ in range(3):
        began = time.process_time()
        for predicted in predictions * 50:
            given = [reader.read(draw.text, asked.letters) for draw in predicted.draws]
            result, right = vote(given, Ties("first")), reader.accepted(asked)
            line = voted.voted_line(asked, result, right)
            curves.add(Ballot(asked, [predicted.draws], given, None), result, right)
            drawn = {"draws": predicted.draws, "greedy": predicted.draws[:1]}
            tally.add(asked, drawn, line)
        seconds.append(time.process_time() - began)
    assert Figures(tally.accuracy, None, 10_000, 0).systems()["draws"].n == 30_000
    assert min(seconds) / 10_000 < 75e-6
