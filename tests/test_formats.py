"""Turning one record into rows: round1, alpaca and columns."""

from __future__ import annotations

from typing import Any

import pytest
from samples import rows_of

from workflow.formats import BadRow, Row
from workflow.patterns import check_pattern, compile_pattern, named_groups
from workflow.recipe.formats import Parse

PATTERN = (
    r"(?s)题目如下：\n\n### 题目:\n(?P<problem>.*?)\n\n### 问题:\n(?P<question>.*?)\n(?P<options>A\. .*\n)"
)


PROBLEM = {
    "problem": "P",
    "id": "r_007",
    "questions": [{"question": "Q", "options": ["x", "y"], "answer": "B"}],
}


def test_round1() -> None:
    [row] = rows_of(PROBLEM, format="round1")
    assert row == Row(
        prompt={"problem": "P", "question": "Q", "options": ["x", "y"]},
        target={"answer": "B"},
        gold=["B"],
        id="r_007#0",
        group="r_007",
        index=0,
    )
    two = {**PROBLEM, "id": None, "questions": PROBLEM["questions"] * 2}  # type: ignore[operator]
    first, second = rows_of(two, format="round1")
    assert first.id == second.id == ""
    assert first.group == second.group != rows_of({**two, "problem": "other"}, format="round1")[0].group


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "C"}, r"questions\[0\]\.answer: 'C' is not among the options A to B"),
        ({"answer": "AB"}, "answer"),
        ({"answer": ""}, "answer"),
        ({"answer": 1}, "answer"),
        ({"options": ["x"]}, r"questions\[0\]\.options: there must be 2 to 7, not 1"),
        ({"options": "xy"}, "options: must be a list of texts"),
        ({"options": ["x", None]}, "options: must be a list of texts"),
        ({"question": None}, r"questions\[0\]\.question: missing; the row has question, options, answer"),
        ({"reasoning": 3}, "reasoning: must be text, not int"),
    ],
)
def test_bad_questions(change: dict[str, Any], message: str) -> None:
    question = {"question": "Q", "options": ["x", "y"], "answer": "A", **change}
    with pytest.raises(BadRow, match=message):
        rows_of({**PROBLEM, "questions": [question]}, format="round1")


@pytest.mark.parametrize("record", [[], None, "x", {"problem": "P"}, {"problem": "P", "questions": []}])
def test_bad_problems(record: Any) -> None:
    with pytest.raises(BadRow):
        rows_of(record, format="round1")


def test_alpaca() -> None:
    [row] = rows_of({"instruction": "I", "input": None, "output": "O"}, format="alpaca")
    assert (row.prompt, row.target, row.rendered) == (
        {"instruction": "I", "input": ""},
        {"output": "O"},
        None,
    )
    with pytest.raises(BadRow, match="output: missing; the row has instruction"):
        rows_of({"instruction": "I"}, format="alpaca")


def parsed(instruction: str, given: str = "", pattern: str = PATTERN) -> Row:
    parse = Parse(field="instruction", pattern=pattern)
    record = {"instruction": instruction, "input": given, "output": "O"}
    return rows_of(record, format="alpaca", parse=parse)[0]


def test_alpaca_parses_the_prompt_back() -> None:
    text = "题目如下：\n\n### 题目:\n多行\n题目\n\n### 问题:\n选择题 1：\n谁？\nA. 一\n续\n\nB. A. x\nC. \n"
    row = parsed(text)
    assert row.rendered == text
    assert row.prompt == {
        "problem": "多行\n题目", "question": "选择题 1：\n谁？", "options": ["一\n续\n", "A. x", ""],
    }  # fmt: skip


def test_alpaca_that_does_not_parse() -> None:
    with pytest.raises(BadRow, match="instruction: does not match .* it begins 'hello'"):
        parsed("hello")
    with pytest.raises(BadRow, match="input: has text, but only instruction is parsed"):
        parsed("A. x\n", "lost", r"(?s)(?P<options>.*)")
    with pytest.raises(BadRow, match="options do not begin with `A. ` but with 'B. x'"):
        parsed("B. x\n", "", r"(?s)(?P<options>.*)")
    assert parsed("x", "", r"(?P<a>x)|(?P<b>y)").prompt == {"a": "x", "b": ""}
    with pytest.raises(ValueError, match="not a valid RE2 pattern"):
        Parse(field="instruction", pattern=r"(?=x)")


def test_patterns() -> None:
    assert named_groups(r"(?P<z>x)(y)(?P<a>z)") == ["z", "a"]
    with pytest.raises(ValueError, match="exactly 1"):
        check_pattern("(a)(b)", 1)
    assert compile_pattern("(a*)*b").search("a" * 100_000) is None  # linear time


def test_columns() -> None:
    source: dict[str, Any] = {
        "format": "columns", "prompt": {"text": "Text"}, "target": {"label": "L"}, "id": "n", "gold": "g",
    }  # fmt: skip
    [row] = rows_of({"Text": "t", "n": 7, "g": 2, "L": "x"}, **source)
    assert row == Row(prompt={"text": "t"}, target={"label": "x"}, gold=["2"], id="7")
    assert rows_of({"Text": "", "n": "a", "g": ""}, **source)[0] == Row(prompt={"text": ""}, id="a")
    for change, message in (
        ({"Text": None}, "Text: missing; the row has Text, n"),
        ({"n": ""}, "n: an id must be"),
        ({"n": True}, "n: an id must be"),
        ({"g": {"a": 1}}, "g: a right answer must be one value, or several in a list, not a dict"),
        ({"L": None}, "L: null"),
    ):
        with pytest.raises(BadRow, match=message):
            rows_of({"Text": "t", "n": "a", **change}, **source)
    with pytest.raises(BadRow, match="must be an object, not list"):
        rows_of([1], **source)
