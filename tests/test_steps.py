"""What happens to records before their format, and to rows after: fill, clean, choose, explode, name."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import orjson
import pytest
from pydantic import ValidationError
from samples import found_in, found_in_all, rows_in, rows_of, source

from workflow.formats import BadRow, Dropped, reader

PAIR: dict[str, Any] = {"format": "prompt_response"}


def test_identity_is_filled_from_the_recipe() -> None:
    fill = {"name": "小明", "author": "某公司"}
    rows = rows_in("llamafactory/identity.json", format="alpaca", fill=fill)
    plain = rows_in("llamafactory/identity.json", format="alpaca")
    assert sum("{{name}}" in row.target["output"] for row in plain) > 10
    assert [row.target["output"] for row in rows] == [
        row.target["output"].replace("{{name}}", "小明").replace("{{author}}", "某公司") for row in plain
    ]
    with pytest.raises(BadRow, match=r"\{\{author\}\}: a placeholder without a text; add author to `fill`"):
        rows_in("llamafactory/identity.json", format="alpaca", fill={"name": "x"})


def test_what_looks_like_a_placeholder_and_is_none() -> None:
    record = {"prompt": "{{ name }} {{1}} {name} {{a b}} }}{{", "response": "{{name}}{{name}}"}
    [row] = rows_of(record, **PAIR, fill={"name": r"\1{{name}}"})
    assert row.prompt["prompt"] == r"\1{{name}} {{1}} {name} {{a b}} }}{{"
    assert row.target["response"] == r"\1{{name}}" * 2


def cleaned(text: str, *steps: str) -> str:
    [row] = rows_of({"prompt": text, "response": "a"}, **PAIR, clean=list(steps))
    return str(row.prompt["prompt"])


def test_cleaning() -> None:
    assert cleaned(" \u3000x y\n", "strip") == "x y"
    assert cleaned("e\u0301", "nfc") == "é"
    assert cleaned("a \t b \n\n c", "collapse_whitespace") == "a b\nc"
    assert cleaned(" e\u0301  x ", "nfc", "collapse_whitespace", "strip") == "é x"
    turns = {"conversations": [{"from": "human", "value": " q "}, {"from": "gpt", "value": " a "}]}
    [row] = rows_of(turns, format="sharegpt", clean=["strip"])
    assert [turn["content"] for turn in row.turns] == ["q", "a"]
    assert row.gold == ["a"]


def test_empty_rows_are_dropped() -> None:
    drop: dict[str, Any] = {"clean": ["drop_empty"]}
    for record in ({"prompt": " \n", "response": "a"}, {"prompt": "q", "response": ""}):
        assert found_in(record, **PAIR, **drop) == [Dropped("empty")]
    assert found_in({"text": ""}, format="text", **drop) == [Dropped("empty")]
    assert len(rows_of({"text": "x"}, format="text", **drop)) == 1
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]
    assert found_in({"conversations": turns}, format="sharegpt", **drop) == [Dropped("empty")]
    assert len(rows_of({"q": "q"}, format="columns", prompt={"q": "q"}, **drop)) == 1  # no target asked for


@pytest.mark.parametrize(
    ("condition", "kept", "reason"),
    [
        ({"field": "x", "present": True}, True, ""),
        ({"field": "e", "present": True}, False, "e: absent"),
        ({"field": "z", "present": True}, False, "z: absent"),
        ({"field": "x", "present": False}, False, "x: present"),
        ({"field": "z", "present": False}, True, ""),
        ({"field": "x", "one_of": ["a", "b"]}, True, ""),
        ({"field": "x", "one_of": ["b"]}, False, "x: none of one_of"),
        ({"field": "z", "one_of": ["b"]}, False, "z: none of one_of"),
        ({"field": "n", "one_of": ["1"]}, True, ""),
        ({"field": "n", "one_of": [True]}, False, "n: none of one_of"),
        ({"field": "t", "one_of": [True]}, True, ""),
        ({"field": "x", "none_of": ["a"]}, False, "x: one of none_of"),
        ({"field": "z", "none_of": ["a"]}, True, ""),
        ({"field": "d.0.y", "one_of": ["abc"]}, True, ""),
        ({"field": "d", "min_characters": 5}, True, ""),
        ({"field": "d", "min_characters": 6}, False, "d: under 6 characters"),
        ({"field": "d", "max_characters": 4}, False, "d: over 4 characters"),
        ({"field": "z", "min_characters": 1}, False, "z: under 1 characters"),
        ({"field": "x", "min_characters": 1, "none_of": ["a"]}, False, "x: one of none_of"),
    ],
)
def test_conditions(condition: dict[str, Any], kept: bool, reason: str) -> None:
    record = {"x": "a", "e": "", "z": None, "n": 1, "t": True, "d": [{"y": "abc"}, "de"]}
    found = found_in(record, format="columns", prompt={"x": "x"}, where=[condition])
    assert [isinstance(row, Dropped) for row in found] == [not kept]
    if not kept:
        assert found == [Dropped(reason)]


def test_conditions_see_cleaned_texts() -> None:
    where = [{"field": "prompt", "min_characters": 2}]
    record = {"prompt": " q ", "response": "a"}
    assert len(rows_of(record, **PAIR, where=where)) == 1
    assert found_in(record, **PAIR, where=where, clean=["strip"]) == [Dropped("prompt: under 2 characters")]


def test_strange_values() -> None:
    deep: Any = "x"
    for _ in range(990):
        deep = [deep]
    with pytest.raises(BadRow, match="nested too deep"):
        rows_of({"prompt": "q", "response": "a", "more": deep}, **PAIR, clean=["strip"])
    with pytest.raises(BadRow, match="nested too deep"):
        rows_of({"prompt": "q", "m": deep}, **PAIR, where=[{"field": "m", "max_characters": 9}])
    record = {"x": Decimal("1.5"), "q": "q"}  # a Parquet file may hold such
    where = [{"field": "x", "one_of": ["1.5", '"1.5"'], "min_characters": 3}]
    assert len(rows_of(record, format="columns", prompt={"q": "q"}, where=where)) == 1


def test_conditions_must_ask_something() -> None:
    with pytest.raises(ValidationError, match="give present, one_of"):
        source(**PAIR, where=[{"field": "x"}])


def test_kto_takes_what_was_liked() -> None:
    liked: dict[str, Any] = {"format": "messages", "where": [{"field": "label", "one_of": [True]}]}
    found = found_in_all("llamafactory/kto_en.json", **liked)
    assert [row if isinstance(row, Dropped) else "row" for row in found] == [
        *["row"] * 4, Dropped("label: none of one_of"),
    ]  # fmt: skip


def test_self_instruct_is_exploded() -> None:
    rows = rows_in(
        "self_instruct/seed_tasks.jsonl", format="columns", id="id", explode="instances",
        prompt={"instruction": "instruction", "input": "instances.input"},
        target={"output": "instances.output"}, gold="instances.output",
    )  # fmt: skip
    assert [row.id for row in rows[:2]] == ["seed_task_0#0", "seed_task_1#0"]
    assert (rows[0].group, rows[0].index, rows[0].prompt["input"]) == ("seed_task_0", 0, "")
    assert rows[0].target["output"].startswith("Yes, you can have 1 oatmeal")


def test_exploding() -> None:
    fields: dict[str, Any] = {"format": "columns", "prompt": {"q": "l.q"}, "explode": "l"}
    record = {"n": 7, "l": [{"q": "a"}, {"q": ""}, {"q": "c"}]}
    rows = rows_of(record, **fields)
    assert [(row.prompt["q"], row.id, row.group) for row in rows] == [
        ("a", "", None), ("", "", None), ("c", "", None),
    ]  # fmt: skip
    found = found_in(record, **fields, id="n", where=[{"field": "l.q", "present": True}])
    assert [row if isinstance(row, Dropped) else (row.id, row.group, row.index) for row in found] == [
        ("7#0", "7", 0), Dropped("l.q: absent"), ("7#2", "7", 2),
    ]  # fmt: skip
    assert rows_of({"l": []}, **fields) == []
    for bad, message in ((None, "l: missing"), ({"q": 1}, "l: must be a list to explode, not dict")):
        with pytest.raises(BadRow, match=message):
            rows_of({"l": bad}, **fields)


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({"format": "prompt_response"}, {"prompt": "q" * 50, "response": "a" * 200}),
        ({"format": "alpaca"}, {"instruction": "q" * 50, "input": "", "output": "a" * 200}),
        ({"format": "gsm8k"}, {"question": "q" * 50, "answer": "a" * 200 + "#### 7"}),
        ({"format": "columns", "prompt": {"q": "q"}, "target": {"a": "a"}}, {"q": "q", "a": "a"}),
        ({"format": "text"}, {"text": "x" * 200}),
    ],
    ids=lambda value: value.get("format"),
)
def test_a_plain_row_takes_less_than_10_microseconds(fields: dict[str, Any], record: Any) -> None:
    """Beyond parsing; 2 to 4 as a rule. The best of five tries, in processor time."""
    read, seconds = reader(source(**fields)), []
    record = orjson.loads(orjson.dumps(record))
    for _ in range(5):
        began = time.process_time()
        for _ in range(5000):
            for _row in read(record):
                pass
        seconds.append(time.process_time() - began)
    assert min(seconds) / 5000 < 10e-6
