"""Reading files record by record, and turning one record into rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.formats import BadRow, Row, reader
from workflow.formats.reading import records
from workflow.patterns import check_pattern, compile_pattern, named_groups
from workflow.recipe.formats import AlpacaSource, ColumnsSource, Parse, Round1Source

PATTERN = (
    r"(?s)题目如下：\n\n### 题目:\n(?P<problem>.*?)\n\n### 问题:\n(?P<question>.*?)\n(?P<options>A\. .*\n)"
)


def read(tmp_path: Path, body: str | bytes, name: str = "data.jsonl") -> list[tuple[int, Any]]:
    path = tmp_path / name
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return list(records(path))


def rows_of(record: Any, **source: Any) -> list[Row]:
    kinds: dict[str, Any] = {"round1": Round1Source, "alpaca": AlpacaSource, "columns": ColumnsSource}
    return list(reader(kinds[source["format"]](path="x.json", **source))(record))


GOOD = [
    (b'{"a": 1}\n{"a": 2}\n', [(1, 1), (2, 2)]),
    (b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}', [(1, 1), (3, 2)]),
    ('{"a": "x\u2028y\u2029z\x85"}\n{"a": 2}\n'.encode(), [(1, "x\u2028y\u2029z\x85"), (2, 2)]),
    (b'{"a": "x\\u0000y"}\n', [(1, "x\0y")]),
    (b'[{"a": 1},\n\n {"a":\n2}]\n', [(1, 1), (3, 2)]),
    (b'\xef\xbb\xbf\n [ {"a": "\xe2\x80\xa8"}\r\n, {"a": 2} ] \r\n', [(2, "\u2028"), (3, 2)]),
    (b"", []),
    (b"\n \r\n", []),
    (b"[]", []),
    (b"[ \n ]\n", []),
]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
@pytest.mark.parametrize(("body", "wanted"), GOOD)
def test_json_files(tmp_path: Path, body: bytes, wanted: list[Any], name: str) -> None:
    assert [(line, record["a"]) for line, record in read(tmp_path, body, name)] == wanted


BAD_RECORDS = [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": Infinity}', b'{"a": "\x01"}']


@pytest.mark.parametrize("shape", [b"%s\n", b"[\n%s]"])
@pytest.mark.parametrize("bad", [*BAD_RECORDS])
def test_values_that_json_does_not_know_are_bad_rows(tmp_path: Path, bad: bytes, shape: bytes) -> None:
    if shape.startswith(b"[") and b"\x01" in bad:
        with pytest.raises(BuildError, match=r"data.jsonl:2: not JSON: Invalid control character"):
            read(tmp_path, shape % bad)
        return
    [(line, value)] = read(tmp_path, shape % bad)
    assert isinstance(value, ValueError)
    assert "not JSON" in str(value)
    assert line == (2 if shape.startswith(b"[") else 1)


@pytest.mark.parametrize("bad", [b'{"a": 1', b"\0", b"\xff\xfe", b'{"a": "\xed\xa0\x80"}', b"{'a': 1}"])
def test_lines_that_are_not_json_are_bad_rows(tmp_path: Path, bad: bytes) -> None:
    found = read(tmp_path, b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')
    assert [line for line, _ in found] == [1, 2, 3]
    assert isinstance(found[1][1], ValueError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[", r"1: not JSON.*cut off"),
        (b'[{"a": 1},\n', r"2: not JSON.*cut off"),
        (b'[{"a": 1},]', r"1: not JSON"),
        (b'[{"a": 1}\n', r"1: the JSON list is cut off"),
        (b'[{"a": 1},\n{"a": "x', r"2: not JSON"),
        (b'[{"a": 1}\n{"a": 2}]', r"1: the JSON list is cut off"),
        (b'[{"a": 1}] [{"a": 2}]', r"more text behind"),
        (b'[{"a": "\xff"}]', r"not UTF-8 text"),
        (b"[" * 100_000, r"1: not JSON.*recursion"),
    ],
)
def test_damaged_lists(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read(tmp_path, body)


def test_csv(tmp_path: Path) -> None:
    body = '\ufeffid,text,\r\n1,"two\r\nlines, ""quoted""",x\r\n\r\n2,中\u2028文\r\n3,a,b,c\r\n4,,'
    found = read(tmp_path, body, "data.CSV")
    assert found[0] == (2, {"id": "1", "text": 'two\r\nlines, "quoted"', "": "x"})
    assert found[1] == (4, {"id": "2", "text": "中\u2028文"}) or found[1][0] == 5
    assert isinstance(found[2][1], ValueError)
    assert str(found[2][1]) == "4 values for 3 columns"
    assert found[3][1] == {"id": "4", "text": "", "": ""}


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"a,b,a\n1,2,3\n", "two columns are called 'a'"), (b'a\n"x', "not CSV"), (b"a\n\xff\n", "not UTF-8")],
)
def test_damaged_csv(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read(tmp_path, body, "data.csv")


def test_empty_csv_and_unknown_ending(tmp_path: Path) -> None:
    assert read(tmp_path, b"", "data.csv") == read(tmp_path, b"a,b\n", "data.csv") == []
    with pytest.raises(BuildError, match=r"end in \.jsonl, \.json or \.csv"):
        read(tmp_path, b"", "data.parquet")


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
    assert row == Row({"text": "t"}, {"label": "x"}, ["2"], "7")
    assert rows_of({"Text": "", "n": "a", "g": ""}, **source)[0] == Row({"text": ""}, {}, [], "a")
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
