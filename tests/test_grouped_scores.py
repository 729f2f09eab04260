"""Scores of rows that belong together, and of whole corpora: against slow computations of their own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from test_scores import ANSWER, SLICE, build, lines, write

from workflow.metrics import metrics_of
from workflow.products import scores
from workflow.recipe.answers import Scoring
from workflow.recipe.leaf import slice_of
from workflow.results import AskedRow, Drawn, Scores
from workflow.schemas import check
from workflow.score_tally import Tally
from workflow.store.build import Job
from workflow.text_scores import TextTally

WORDS = "the cat sat on a mat and the dog ran to it".split()


def made(job: Job) -> Scores:
    scores.make(job)
    return Scores.model_validate(check("scores", json.loads((job.out / "scores.json").read_text()), "test"))


def grouped(job: Job) -> dict[str, list[str]]:
    """Put the rows into problems of 1 to 5 rows; problem -> ids of its scored rows."""
    chance, problems = random.Random(9), dict[str, list[str]]()
    path = job.inputs["rows"] / "rows.jsonl"
    rows = lines(path)
    for row in rows:
        row["group"], row["index"] = f"p{chance.randrange(25) ** 2 // 25}", None
        if row["gold"]:
            problems.setdefault(row["group"], []).append(row["id"])
    write(path, rows)
    return problems


@pytest.mark.parametrize("weigh", [None, "rows", "problems"])
def test_accuracy_of_rows_in_problems(tmp_path: Path, weigh: str | None) -> None:
    job = build(tmp_path, resamples=20_000, weigh=weigh)
    problems = grouped(job)
    found = made(job)
    values = {item["id"]: item["values"]["accuracy"] for item in lines(tmp_path / "out/items.jsonl")}
    assert found.problems == len(problems) < found.scored == len(values)
    size = np.array([len(ids) for ids in problems.values()])
    weights = np.ones(len(size)) if weigh == "problems" else size
    places = np.random.default_rng(4).integers(0, len(size), (20_000, len(size)))

    def naive(of: Any) -> tuple[float, np.ndarray[Any, Any]]:
        means = np.array([np.mean([of(values[id]) for id in ids]) for ids in problems.values()])
        drawn = (means * weights)[places].sum(axis=1) / weights[places].sum(axis=1)
        return float(np.average(means, weights=weights)), drawn

    for name, system in found.systems.items():
        if name != "majority_class":
            mean, drawn = naive(lambda value, name=name: value[name])
            assert system.accuracy == pytest.approx(mean)
            assert (system.low, system.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    for name, test in found.tests.items():
        one, other = name.split("_vs_")
        mean, drawn = naive(lambda value, one=one, other=other: value[one] - value[other])
        assert test.method == "bootstrap" and test.difference == pytest.approx(mean)
        assert test.p == pytest.approx(
            min(1, 2 * min((drawn <= 1e-12).mean(), (drawn >= -1e-12).mean())), abs=0.03
        )


def test_problems_of_one_row_are_rows(tmp_path: Path) -> None:
    job = build(tmp_path)
    alone = made(job)
    path = job.inputs["rows"] / "rows.jsonl"
    write(path, [{**row, "group": f"g{row['id']}"} for row in lines(path)])
    assert made(job) == alone
    job.slice["weigh"] = "problems"
    assert made(job).systems["greedy"].accuracy == alone.systems["greedy"].accuracy


def dialogues(tmp_path: Path, count: int = 80) -> Job:
    """Every fourth problem has its row three times, each with a reference of its own."""
    chance, rows = random.Random(3), []
    for number in range(count):
        for part in range(3 if number % 4 == 0 else 1):
            gold = [" ".join(chance.choices(WORDS, k=12))]
            rows.append({"id": f"{number:03d}-{part}", "group": f"d{number}", "prompt": {}, "gold": gold})
    inputs = {"rows": write(tmp_path / "rows/rows.jsonl", rows)}
    for role, noise, draws in (("draws", 4, 2), ("greedy", 2, 1), ("base", 6, 1)):
        said = []
        for row in rows:
            texts = []
            for _ in range(draws):
                words = row["gold"][0].split()
                for _ in range(noise):
                    words[chance.randrange(12)] = "x"
                texts.append({"text": " ".join(words), "finish_reason": "stop"})
            said.append({"id": row["id"], "draws": texts})
        inputs[role] = write(tmp_path / role / "predictions.jsonl", said)
    (tmp_path / "out").mkdir()
    slice = slice_of(Scoring(metrics=["bleu", "chrf", "f1"], weigh="rows", resamples=500), "scores")
    return Job(slice, inputs, {}, tmp_path / "out", tmp_path, tmp_path)


def test_bleu_is_of_the_corpus_and_its_interval_of_resampled_problems(tmp_path: Path) -> None:
    job = dialogues(tmp_path)
    found = made(job).text_metrics["bleu"]
    bleu, generator = BLEU(), np.random.default_rng(1)
    rows = lines(job.inputs["rows"] / "rows.jsonl")
    golds, names = [row["gold"][0] for row in rows], sorted({row["group"] for row in rows})
    of = {name: [i for i, row in enumerate(rows) if row["group"] == name] for name in names}
    assert (found.of, found.signature) == ("corpus", str(_signature(bleu)))
    for role in ("greedy", "base"):
        texts = [line["draws"][0]["text"] for line in lines(job.inputs[role] / "predictions.jsonl")]
        system = found.systems[role]
        assert system.mean == pytest.approx(bleu.corpus_score(texts, [golds]).score / 100, abs=1e-8)
        assert system.n == len(names) == 80
        drawn = []
        for _ in range(300):
            places = [i for name in generator.choice(names, len(names)) for i in of[name]]
            score = bleu.corpus_score([texts[i] for i in places], [[golds[i] for i in places]]).score
            drawn.append(score / 100)
        assert (system.low, system.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    both = [
        draw["text"] for line in lines(job.inputs["draws"] / "predictions.jsonl") for draw in line["draws"]
    ]
    whole = bleu.corpus_score(both, [[gold for gold in golds for _ in range(2)]]).score
    assert found.systems["draws"].mean == pytest.approx(whole / 100, abs=1e-8)
    gain = found.tests["greedy_vs_base"]
    assert gain.difference == pytest.approx(found.systems["greedy"].mean - found.systems["base"].mean)
    assert gain.low > 0 and gain.p == 2 / 501


def _signature(bleu: BLEU) -> Any:
    bleu.sentence_score("a", ["a"])
    return bleu.get_signature()


def test_problems_weigh_the_same(tmp_path: Path) -> None:
    job = dialogues(tmp_path)
    rows = made(job).text_metrics
    items = lines(tmp_path / "out/items.jsonl")
    job.slice["weigh"] = None
    problems = made(job).text_metrics
    each: dict[str, list[float]] = {}
    for item in items:
        each.setdefault(item["group"], []).append(item["values"]["f1"]["greedy"])
    assert problems["f1"].systems["greedy"].mean == pytest.approx(
        np.mean([np.mean(e) for e in each.values()])
    )
    whole = np.mean([value for values in each.values() for value in values])
    assert rows["f1"].systems["greedy"].mean == pytest.approx(whole)
    assert problems["bleu"].systems["greedy"].mean != rows["bleu"].systems["greedy"].mean


def test_rows_without_gold_are_scored_by_what_needs_none(tmp_path: Path) -> None:
    job = dialogues(tmp_path, 8)
    path = job.inputs["rows"] / "rows.jsonl"
    write(
        path, [{**row, "gold": row["gold"] if number % 2 else []} for number, row in enumerate(lines(path))]
    )
    job.slice["metrics"] = ["json_valid", "f1"]
    found = made(job)
    assert (
        found.text_metrics["json_valid"].systems["greedy"].n
        == 8
        > found.text_metrics["f1"].systems["greedy"].n
    )
    items = lines(tmp_path / "out/items.jsonl")
    assert len(items) == found.rows > found.scored
    assert {len(item["values"]) for item in items} == {1, 2}


def test_parts_of_the_rows_add_up(tmp_path: Path) -> None:
    job = build(tmp_path)
    grouped(job)
    chosen = {**SLICE, "metrics": ["accuracy", "f1", "json_valid"], "answer": ANSWER}
    rows = [AskedRow.model_validate(row) for row in lines(job.inputs["rows"] / "rows.jsonl")]
    tallies = [Tally(TextTally(metrics_of(chosen, {})), None) for _ in range(3)]
    for number, row in enumerate(rows):
        for tally in (tallies[0], tallies[1 + (number >= 25)]):
            tally.add(row, {"draws": [Drawn(text="A")], "greedy": [Drawn(text="[1]" * (number % 2))]}, None)
    whole, first, second = tallies
    first.absorb(second)
    assert first.texts.results(None, 100, 0) == whole.texts.results(None, 100, 0)
    assert (first.problems, first.rows, first.scored) == (whole.problems, whole.rows, whole.scored)
    assert first.counted == whole.counted
