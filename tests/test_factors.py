"""Differences between arms are told in the recipe's own words, wherever in the graph they act."""

from __future__ import annotations

from pathlib import Path

from test_arms import RANKS, with_other_rows, write
from workspace import folder


def test_rows_shown_in_a_prompt_are_training_rows(tmp_path: Path) -> None:
    place = folder(tmp_path / "it")
    with_other_rows(place)
    place.edit("small.yaml", "max_length: 256", "max_length: 256, examples: {k: 2, select: fixed, seed: 0}")
    head = (
        RANKS.partition("factors")[0] + "factors: {dataset.train: what is learned, prompt.examples: shots}\n"
    )
    arms = (
        "arms: {rows: {set: {dataset.train.path: data/other.jsonl}}, none: {set: {prompt.examples: null}}}\n"
    )
    arms = write(place, head + arms).graph("experiments/ranks").node("experiment").slice["arms"]
    found = {(one["field"], one["where"]) for one in arms["rows"]["differs"]}
    assert found == {("dataset.train", "training"), ("dataset.train", "asking and scoring")}
    assert {one["field"].partition("examples")[0] for one in arms["none"]["differs"]} == {"prompt."}


def test_rows_that_weigh_voters_are_of_their_own_split(tmp_path: Path) -> None:
    place = folder(tmp_path / "it")
    with_other_rows(place)
    place.edit(
        "small.yaml",
        "  test: {path: data/test.jsonl, format: round1}\n",
        "  test: {path: data/test.jsonl, format: round1}\n"
        "  validation: {path: data/train.jsonl, format: round1}\n",
    )
    place.edit("small.yaml", "rule: majority", "rule: weighted, weights: accuracy")
    head = RANKS.partition("factors")[0] + "factors: {dataset.validation: who weighs}\n"
    text = head + "arms: {rows: {set: {dataset.validation.path: data/other.jsonl}}}\n"
    arms = write(place, text).graph("experiments/ranks").node("experiment").slice["arms"]
    assert {(one["field"], one["where"]) for one in arms["rows"]["differs"]} == {
        ("dataset.validation", "asking and scoring")
    }
