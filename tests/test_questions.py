"""Formats whose rows are a question and its answer, and plain text."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from samples import found_in, rows_in, rows_of, source

from workflow.formats import BadRow, Dropped
from workflow.formats.options import without_letters

BBH = {
    "format": "multiple_choice",
    "explode": "examples",
    "choice": {"question": "examples.input", "options_behind": "Options:", "label": "examples.target"},
}


def test_gsm8k() -> None:
    rows = rows_in("gsm8k/test.jsonl", format="gsm8k")
    assert [row.gold for row in rows[:4]] == [["18"], ["3"], ["70000"], ["540"]]
    assert rows[1].target == {
        "solution": "It takes 2/2=<<2/2=1>>1 bolt of white fiber\n"
        "So the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric",
        "answer": "3",
    }
    assert set(rows[1].prompt) == {"question"}
    plain = rows_in("gsm8k/test.jsonl", format="gsm8k", calculator="drop")
    assert plain[1].target["solution"].startswith("It takes 2/2=1 bolt")
    assert not any("<<" in row.target["solution"] for row in plain)


@pytest.mark.parametrize(
    ("answer", "gold"), [("x #### 1,234,567", "1234567"), ("####-3", "-3"), ("a\n#### $5.50 \n", "5.50")]
)
def test_gsm8k_numbers(answer: str, gold: str) -> None:
    assert rows_of({"question": "q", "answer": answer}, format="gsm8k")[0].gold == [gold]


@pytest.mark.parametrize("answer", ["18", "#### ", "#### eighteen", "#### 1 2", "#### 18\nso 18"])
def test_gsm8k_without_a_number(answer: str) -> None:
    with pytest.raises(BadRow, match="answer: must end in `#### number`"):
        rows_of({"question": "q", "answer": answer}, format="gsm8k")


def test_bbh_options_behind_a_line() -> None:
    rows = rows_in("bbh/date_understanding.json", **BBH)
    assert len(rows) == 8
    assert rows[0].prompt == {
        "question": "Today is Christmas Eve of 1937. What is the date tomorrow in MM/DD/YYYY?",
        "options": ["12/11/1937", "12/25/1937", "01/04/1938", "12/04/1937", "12/25/2006", "07/25/1937"],
    }
    assert (rows[0].target, rows[0].gold, rows[0].group) == ({"answer": "B"}, ["B"], None)
    seven = rows_in("bbh/logical_deduction_seven_objects.json", **BBH)
    assert {len(row.prompt["options"]) for row in seven} == {7}
    with pytest.raises(BadRow, match=r"examples\.input: has no line 'Options:'"):
        rows_in("bbh/web_of_lies.json", **BBH)


def test_bbh_without_options() -> None:
    rows = rows_in(
        "bbh/web_of_lies.json", format="columns", explode="examples",
        prompt={"question": "examples.input"}, gold="examples.target",
    )  # fmt: skip
    assert {row.gold[0] for row in rows} <= {"Yes", "No"}
    assert len(rows) == 5


ASKED = {"question": "q", "options": ["x", "y", "z"], "label": "B"}


def chosen(**change: Any) -> Any:
    choice = change.pop("choice", {})
    return found_in({**ASKED, **change}, format="multiple_choice", choice=choice)[0]


@pytest.mark.parametrize(
    "options",
    [
        ["(A) x", "(B) y", "(C) z"], ["A. x", "B. y", "C. z"], ["A.x", "B.y", "C.z"],
        ["A、x", "B、y", "C、z"],
        ["A) x", "B) y", "C) z"], ["（A）x", "（B）y", "（C）z"], "A. x\nB. y\nC. z\n", "(A) x\n(B) y\n(C) z",
    ],
)  # fmt: skip
def test_letters_are_taken_off(options: Any) -> None:
    assert chosen(options=options).prompt["options"] == ["x", "y", "z"]


def test_letters_that_are_no_letters_stay() -> None:
    for options in (["A dog", "B cat"], ["A. x", "C. y"], ["A. x", "y"], ["B. x", "A. y"]):
        assert without_letters(options) == options


@pytest.mark.parametrize("label", ["B", "(B)", "B.", " B ", "B、", ["B"], "（B）"])
def test_labels_that_are_letters(label: Any) -> None:
    assert (chosen(label=label).gold, chosen(label=label).target) == (["B"], {"answer": "B"})


@pytest.mark.parametrize(
    ("kind", "label"), [("index", 1), ("index", "1"), ("number", 2), ("number", "2"), ("text", "y")]
)
def test_labels_of_other_kinds(kind: str, label: Any) -> None:
    assert chosen(label=label, choice={"label_is": kind}).gold == ["B"]


@pytest.mark.parametrize("label", ["BC", "B, C", "(A)(C)", ["A", "B"], "A;B", "BB"])
def test_several_letters(label: Any) -> None:
    with pytest.raises(BadRow, match="label: several right options.*`several: drop`"):
        chosen(label=label)
    assert chosen(label=label, choice={"several": "drop"}) == Dropped("several right options")


def test_without_a_label() -> None:
    for label in (None, "", []):
        assert (chosen(label=label).gold, chosen(label=label).target) == ([], {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "D"}, "label: 'D' is not among the options A to C"),
        ({"label": "b"}, "label: 'b' is not among"),
        ({"label": 1}, "label: 1 is not among"),
        ({"label": 3, "choice": {"label_is": "index"}}, "label: index 3 is none of the 3 options"),
        ({"label": 0, "choice": {"label_is": "number"}}, "label: number 0 is none of the 3 options"),
        ({"label": "x!", "choice": {"label_is": "number"}}, "label: must be a whole number, not 'x!'"),
        ({"label": True, "choice": {"label_is": "index"}}, "label: must be a whole number, not True"),
        ({"label": "w", "choice": {"label_is": "text"}}, "label: 'w' is the text of 0 options"),
        (
            {"label": "x", "options": ["x", "x"], "choice": {"label_is": "text"}},
            "label: 'x' is the text of 2 options, not of one",
        ),
        ({"options": ["x"]}, "options: there must be 2 to 26, not 1"),
        ({"options": 5}, "options: must be a list of options, not int"),
        ({"options": ["x", None]}, "options: an option must be text or a number, not None"),
        ({"options": None}, "options: missing; the row has question, options, label"),
        ({"options": "x\ny"}, "options: the options do not begin with `A. ` but with 'x'"),
        ({"question": None}, "question: missing"),
        ({"choice": {"passage": "p"}}, "p: missing"),
    ],
)
def test_bad_choices(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRow, match=message):
        chosen(**change)


def test_options_in_columns() -> None:
    choice = {"question": "Question", "options": ["A", "B", "C", "D"], "label": "Answer"}
    record = {"Question": "q", "A": "1", "B": "2", "C": "3", "D": "", "Answer": "C"}
    [row] = rows_of(record, format="multiple_choice", choice=choice)
    assert (row.prompt["options"], row.gold) == (["1", "2", "3"], ["C"])


def test_questions_about_one_passage_stay_together() -> None:
    one, two = chosen(p="P", choice={"passage": "p"}), chosen(p="P", question="r", choice={"passage": "p"})
    assert one.group == two.group != chosen(p="Q", choice={"passage": "p"}).group
    assert one.prompt == {"passage": "P", "question": "q", "options": ["x", "y", "z"]}
    assert one.index is None  # no place in a submission


def test_choices_that_contradict_themselves() -> None:
    for choice, message in (
        ({"options": "o", "options_behind": "Options:"}, "either `options` or `options_behind`"),
        ({"options": ["A"]}, "at least two"),
    ):
        with pytest.raises(ValidationError, match=message):
            source(format="multiple_choice", choice=choice)


def test_prompt_response() -> None:
    rows = rows_in("chatglm/data_sample.jsonl", format="prompt_response")
    assert len(rows) == 10
    assert rows[0].prompt["prompt"].startswith("请根据以下标签为商品编写一段广告\n类型#裤")
    assert rows[0].gold == [rows[0].target["response"]]
    belle = {"format": "prompt_response", "prompt_column": "input", "response_column": "target"}
    [row] = rows_of({"input": "问", "target": "答"}, **belle)
    assert (row.prompt, row.target, row.turns) == ({"prompt": "问"}, {"response": "答"}, [])
    with pytest.raises(BadRow, match="target: missing; the row has input"):
        rows_of({"input": "问"}, **belle)


def test_text() -> None:
    [row] = rows_of({"text": "All of it."}, format="text")
    assert (row.prompt, row.target, row.gold) == ({}, {"text": "All of it."}, [])
    [row] = rows_of({"body": "x"}, format="text", text_column="body")
    assert row.target == {"text": "x"}


def test_several_references() -> None:
    summaries = {"summary1": "a", "summary2": "b", "summary3": None}
    fields = {"format": "columns", "prompt": {"dialogue": "d"}, "gold": list(summaries)}
    assert rows_of({"d": "x", **summaries}, **fields)[0].gold == ["a", "b"]
    assert rows_of({"d": "x", "g": ["a", 1, ""]}, **{**fields, "gold": "g"})[0].gold == ["a", "1"]
    with pytest.raises(BadRow, match="g: a right answer must be one value, or several in a list, not lists"):
        rows_of({"d": "x", "g": [["a"]]}, **{**fields, "gold": "g"})


def test_dialogues() -> None:
    rows = rows_in(
        "mts_dialog/validation.csv", format="columns", id="ID",
        prompt={"dialogue": "dialogue"}, target={"summary": "section_text"}, gold="section_text",
    )  # fmt: skip
    assert (len(rows), rows[0].id) == (10, "0")
    assert "Doctor:" in rows[0].prompt["dialogue"]
    assert rows[0].gold == [rows[0].target["summary"]]
