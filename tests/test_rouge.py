"""ROUGE: the figures of rouge-score itself on English, by character in Chinese, and their statistics."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from workflow.metrics.metric import Chosen
from workflow.metrics.rouge import ROUGE, Rouge
from workflow.products import scores
from workflow.recipe import load_recipe
from workflow.recipe.answers import Scoring
from workflow.recipe.leaf import slice_of
from workflow.results import AskedRow, Scores
from workflow.schemas import check
from workflow.show import table
from workflow.significance import paired, resampled
from workflow.store.build import Job

WORDS = "the cats cat sat sitting on mats mat dogs were running quickly, and slept. It's\n his hi".split(" ")


def f1(metric: str, references: list[str], text: str, stem: bool = True) -> float:
    row = AskedRow(id="a", prompt={}, gold=references)
    return Rouge(metric, Chosen(stem=stem)).score(row, text)


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.sampled_from(WORDS), max_size=12))
def test_english_is_what_rouge_score_says(one: list[str], other: list[str]) -> None:
    for stem in (True, False):
        theirs = RougeScorer(list(ROUGE), use_stemmer=stem).score(" ".join(one), " ".join(other))
        found = [f1(metric, [" ".join(one)], " ".join(other), stem) for metric in ROUGE]
        assert found == [theirs[metric].fmeasure for metric in ROUGE]


def naive_rouge1(reference: str, text: str) -> float:
    """Shared characters, by hand."""
    shared = sum(min(reference.count(c), text.count(c)) for c in set(reference))
    return 2 * shared / (len(reference) + len(text))


def test_chinese_is_compared_by_character() -> None:
    one, other = "他今天去北京", "今天她去北京"
    found = f1("rouge1", [one], other)
    assert found == pytest.approx(naive_rouge1(one, other)) == pytest.approx(5 / 6)
    assert f1("rouge2", [one], other) == pytest.approx(3 / 5)  # 今天, 去北, 北京
    assert RougeScorer(["rouge1"]).score(one, other)["rouge1"].fmeasure == 0  # which knows no such letters


def test_stems_are_of_english_words() -> None:
    assert f1("rouge1", ["walking"], "walked") == 1
    assert f1("rouge1", ["walking"], "walked", stem=False) == 0
    assert f1("rouge1", ["études"], "étude") == 0
    assert f1("rouge1", ["Études"], "études") == 1


def test_the_best_reference_counts_and_nothing_said_is_0() -> None:
    for metric in ROUGE:
        assert f1(metric, ["another thing", "the cats sat", "x"], "The cat sat!") == 1
        assert f1(metric, ["the cat"], "") == f1(metric, ["the cat"], " \n…") == 0
    assert f1("rougeL", ["a b\nc d"], "c d\na b") == 0.5
    assert f1("rougeLsum", ["a b\nc d"], "c d\na b") == 1  # sentences are divided by line ends


def build(tmp_path: Path, rows: list[dict[str, Any]], said: dict[str, list[list[str]]], **chosen: Any) -> Job:
    inputs = {}
    for role in ("rows", *said):
        lines = rows
        if role != "rows":
            draws = [[{"text": text, "finish_reason": "stop"} for text in texts] for texts in said[role]]
            draws[0][0]["finish_reason"] = "length"
            lines = [{"id": row["id"], "draws": draw} for row, draw in zip(rows, draws, strict=True)]
        inputs[role] = tmp_path / role
        inputs[role].mkdir()
        name = "rows.jsonl" if role == "rows" else "predictions.jsonl"
        (inputs[role] / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "out").mkdir()
    slice = slice_of(Scoring(metrics=["rouge1"], compare=["base"], resamples=4000, seed=7), "scores") | chosen
    return Job(slice, inputs, {}, tmp_path / "out", tmp_path, tmp_path)


def made(job: Job) -> Scores:
    scores.make(job)
    return Scores.model_validate(check("scores", json.loads((job.out / "scores.json").read_text()), "test"))


def test_rows_of_one_problem_count_once(tmp_path: Path) -> None:
    rows = [
        {"id": "a1", "group": "a", "prompt": {}, "gold": ["the cat sat"]},
        {"id": "a2", "group": "a", "prompt": {}, "gold": ["no", "the dog ran"]},
        {"id": "b", "prompt": {}, "gold": ["x y"]},
        {"id": "c", "prompt": {}, "gold": []},
    ]
    said = {
        "greedy": [["the cat sat"], [""], ["x y"], ["?"]],
        "base": [["the"], ["the dog ran"], [""], ["?"]],
        "draws": [["the cat sat", "no"], ["the dog ran"] * 2, ["x", ""], ["?", "?"]],
    }
    found = made(build(tmp_path, rows, said))
    assert (found.rows, found.scored, found.draws, found.systems, found.tests) == (4, 3, 2, {}, {})
    systems = found.text_metrics["rouge1"].systems
    expected = {
        "greedy": (0.5 + 1) / 2,
        "base": ((0.5 + 1) / 2 + 0) / 2,
        "draws": ((0.5 + 1) / 2 + 1 / 3) / 2,
    }
    assert {name: system.mean for name, system in systems.items()} == pytest.approx(expected)
    assert {system.n for system in systems.values()} == {2}
    items = [json.loads(line) for line in (tmp_path / "out/items.jsonl").read_text().splitlines()]
    assert [(item["id"], item["group"]) for item in items] == [("a1", "a"), ("a2", "a"), ("b", None)]
    assert items[1]["values"] == {"rouge1": {"base": 1.0, "greedy": 0.0, "draws": 1.0}}
    assert (systems["greedy"].length_rate, systems["draws"].length_rate) == (1 / 3, 1 / 6)
    assert found.text_metrics["rouge1"].tests["greedy_vs_base"].difference == pytest.approx(0.75 - 0.375)
    assert "rouge1                 %  95 % interval  n  cut at max_tokens %" in table(found)
    assert re.search(
        "tuning: rouge1 of this model less that of the base model is .37.5 points, 95", table(found)
    )


def test_interval_and_test_are_those_of_real_resampling() -> None:
    chance = np.random.default_rng(1)
    before, after = chance.beta(2, 5, 200), chance.beta(2.2, 5, 200)
    means = np.concatenate([*resampled(np.stack([before, after], axis=1), 20_000, 3)]) / 200
    places = chance.integers(0, 200, (20_000, 200))
    for column, values in enumerate((before, after)):
        expected = np.quantile(values[places].mean(axis=1), [0.025, 0.975])
        assert np.quantile(means[:, column], [0.025, 0.975]) == pytest.approx(expected, abs=0.002)
    test = paired(float((after - before).mean()), means[:, 1] - means[:, 0])
    naive = (after - before)[places].mean(axis=1)
    assert (test.low, test.high) == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.003)
    assert test.p == pytest.approx(2 * min((naive <= 0).mean(), (naive >= 0).mean()), abs=0.02)
    assert test.difference == pytest.approx((after - before).mean())


def test_equal_systems_do_not_differ() -> None:
    values = np.array([[0.1, 0.1], [0.7, 0.7], [0.3, 0.3]])
    [sums] = resampled(values, 500, 0)
    assert (sums[:, 0] == sums[:, 1]).all()
    assert paired(0.0, sums[:, 0] - sums[:, 1]).p == 1
    assert (next(resampled(values, 500, 0)) == sums).all()
    better = paired(1.0, np.ones(500))
    assert (better.p, better.low) == (2 / 501, 1)


def test_resampling_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((50, 2))
    [whole] = resampled(values, 300, 4)
    monkeypatch.setattr("workflow.significance.CELLS", 700)
    blocks = [*resampled(values, 300, 4)]
    assert len(blocks) == 300 // 14 + 1
    assert np.concatenate(blocks) == pytest.approx(whole, abs=1e-12)


def test_without_references_nothing_is_scored(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": {}}]
    found = made(build(tmp_path, rows, {"greedy": [["x"]], "draws": [["x"]]}))
    assert (found.scored, found.text_metrics) == (0, {})
    assert table(found) == "not scored: none of the 1 test rows has a gold answer"


def test_a_recipe_without_voting_is_scored(tmp_path: Path) -> None:
    from workspace import RECIPE, folder

    place = folder(tmp_path / "w")
    text = re.sub(r"voting: .*\n", "", RECIPE).replace("[accuracy]", "[rougeL]")
    place.path("recipes/rouge.yaml").write_text(text)
    graph = place.graph("rouge")
    assert load_recipe(place.path("recipes/rouge.yaml")).voting is None
    assert set(graph.node("scores").inputs) == {"draws", "rows", "overlap", "greedy", "base"}
    assert "voted" not in graph.products and "scores" in graph.node("report").inputs
    both = RECIPE.replace("[accuracy]", "[accuracy, rougeL]")
    place.path("recipes/both.yaml").write_text(both)
    assert "voted" in place.graph("both").node("scores").inputs


def test_a_thousand_texts_take_seconds() -> None:
    import time

    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=60)) for _ in range(60)]
    began = time.process_time()
    metrics = [Rouge(metric, Chosen()) for metric in ROUGE]
    for one, other in zip(texts, texts[::-1], strict=True):
        for metric in metrics:
            metric.compare(other, one)
    assert (time.process_time() - began) / len(texts) < 0.02
