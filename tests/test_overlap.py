"""Which test rows the training rows already show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.products import overlap
from workflow.store.build import Job

Row = tuple[str, dict[str, Any]]


def made(tmp_path: Path, train: list[Row], test: list[Row]) -> tuple[dict[str, Any], Any]:
    inputs = {}
    for split, rows in (("train", train), ("test", test)):
        inputs[split] = tmp_path / split
        inputs[split].mkdir()
        body = "".join(json.dumps({"id": id, "prompt": prompt}) + "\n" for id, prompt in rows)
        (inputs[split] / "rows.jsonl").write_text(body)
    (tmp_path / "out").mkdir()
    counts = overlap.make(Job({}, inputs, {}, tmp_path / "out", tmp_path, tmp_path))
    return counts, json.loads((tmp_path / "out/overlap.json").read_text(encoding="utf-8"))


def test_exact_and_normalised_pairs(tmp_path: Path) -> None:
    train: list[Row] = [
        ("r1", {"problem": "甲比乙高。", "options": ["A b", "c"]}),
        ("r2", {"options": ["A b", "c"], "problem": "甲比乙高。"}),
        ("r3", {"problem": "another", "options": ["x", "y"]}),
        ("r4", {"instruction": "what IS it?", "input": ""}),
    ]
    test: list[Row] = [
        ("t1", {"problem": "甲比乙高。", "options": ["A b", "c"]}),
        ("t2", {"problem": "**甲比乙 高**\n", "options": ["ab", "Ｃ"]}),
        ("t3", {"problem": "new", "options": ["x", "y"]}),
        ("t4", {"question": "What is it"}),
    ]
    counts, written = made(tmp_path, train, test)
    assert written["exact"] == [["r1", "t1"], ["r2", "t1"]]
    assert written["normalised"] == [["r1", "t1"], ["r1", "t2"], ["r2", "t1"], ["r2", "t2"], ["r4", "t4"]]
    assert counts == {
        "train_rows": 4, "test_rows": 4, "exact_pairs": 2, "exact_test_rows": 1,
        "normalised_pairs": 5, "normalised_test_rows": 3, "similar_pairs": 0, "similar_test_rows": 0,
        "contaminated_test_rows": 3, "longest_match": 0,
    }  # fmt: skip
    assert {key: written[key] for key in counts} == counts


def test_nothing_in_common(tmp_path: Path) -> None:
    counts, written = made(tmp_path, [("a", {"q": "1"})], [("a", {"q": "2"})])
    assert (counts["exact_pairs"], counts["normalised_pairs"]) == (0, 0)
    assert written["exact"] == written["normalised"] == []


def test_conversations_are_compared_by_what_is_asked(tmp_path: Path) -> None:
    def told(id: str, *texts: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        return {"id": id, "prompt": {"system": ""}, "turns": turns}

    train = [
        told("r1", "q", "a"),
        told("r2", "q", "a", "q2", "b"),
        told("r3", "Q!", "x"),
        told("r4", "z", "a"),
    ]
    plain = [{"id": f"x{i}", "prompt": {}, "target": {"text": "x"}} for i in range(2)]
    inputs = {"train": tmp_path / "train", "test": tmp_path / "test"}
    for folder, rows in zip(
        inputs.values(), ([*train, *plain], [told("t", "q", "other"), *plain]), strict=True
    ):
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "out").mkdir()
    counts = overlap.make(Job({}, inputs, {}, tmp_path / "out", tmp_path, tmp_path))
    written = json.loads((tmp_path / "out/overlap.json").read_text())
    assert (written["exact"], written["normalised"]) == ([["r1", "t"]], [["r1", "t"], ["r3", "t"]])
    assert (counts["train_rows"], counts["test_rows"]) == (6, 3)  # plain text asks nothing


def test_prompts_of_punctuation_match_only_when_equal(tmp_path: Path) -> None:
    _, written = made(tmp_path, [("a", {"q": "?"}), ("b", {"q": "!"})], [("t", {"q": "?"})])
    assert written["exact"] == written["normalised"] == [["a", "t"]]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"options": ["1", "23"]}, {"options": ["12", "3"]}, False),
        ({"n": 12}, {"n": "12"}, True),
        ({"q": "Straße"}, {"q": "STRASSE"}, True),
        ({"q": "a\u00a0b\u3000c\t"}, {"q": "abc"}, True),
        ({"q": "３：５"}, {"q": "3:5"}, True),
        ({"q": "a+b"}, {"q": "ab"}, False),  # + is no punctuation but a symbol
        ({"q": "没有"}, {"q": "有"}, False),
        ({"q": "x", "hint": None}, {"q": "x"}, True),
    ],
)
def test_what_normalisation_ignores(one: dict[str, Any], other: dict[str, Any], equal: bool) -> None:
    assert (overlap.digests(one)[1] == overlap.digests(other)[1]) is equal
    assert overlap.digests(one)[0] != overlap.digests(other)[0]


@given(st.text(max_size=30), st.sampled_from(" \t\n\u3000.,:!?，。：*-"))
def test_spacing_and_punctuation_do_not_count(text: str, between: str) -> None:
    spaced = between.join(["", text.upper(), ""])
    assert overlap.normalised(spaced) == overlap.normalised(text.upper())
    assert not any(character.isspace() for character in overlap.normalised(spaced))


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=3))
def test_equal_exactly_means_equal_normalised(prompt: dict[str, str]) -> None:
    assert overlap.digests(prompt) == overlap.digests(dict(reversed(prompt.items())))
