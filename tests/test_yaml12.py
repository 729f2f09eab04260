"""Scalars by YAML 1.2's core schema, and places."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.recipe.yaml12 import YamlError, parse

CORE = [
    *(("1e-4", 1e-4), ("1E4", 1e4), ("1.0e-4", 1e-4), (".5", 0.5), ("3.", 3.0), ("+7", 7), ("-0", 0)),
    *(("010", 10), ("0o10", 8), ("0x1F", 31), ("0b1", "0b1"), ("1_000", "1_000"), ("12:30:45", "12:30:45")),
    *(("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO")),
    *(("true", True), ("TRUE", True), ("False", False), ("tRUE", "tRUE")),
    *(("null", None), ("~", None), ("", None), ("NULL", None), ("nil", "nil")),
    *((".inf", math.inf), ("-.INF", -math.inf), ("inf", "inf"), ("nan", "nan")),
    *(("2001-12-14", "2001-12-14"), ("'1'", "1"), ('"true"', "true"), ("e5", "e5"), ("1e", "1e"), ("٣", "٣")),
    *(("0123456789abcdef0123456789abcdef01234567", "0123456789abcdef0123456789abcdef01234567"),),
]


@pytest.mark.parametrize(("text", "value"), CORE)
def test_core_schema(text: str, value: Any) -> None:
    found = parse(f"x: {text}\n").value["x"]
    assert (type(found), found) == (type(value), value)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(parse("x: .nan").value["x"])


def test_block_text_is_text() -> None:
    assert parse("x: |\n  12\ny: >\n  no\n").value == {"x": "12\n", "y": "no\n"}


def test_places_are_of_keys_and_items() -> None:
    document = parse("a: 1\nb:\n  - x\n  - {c: 2}\n")
    assert document.places["b",] == (2, 1)
    assert document.places["b", 1] == (4, 5)
    assert document.places["b", 1, "c"] == (4, 6)


def test_an_alias_is_its_anchor() -> None:
    assert parse("a: &x {r: 8}\nb: *x\n").value == {"a": {"r": 8}, "b": {"r": 8}}


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a: 1\na: 2", (2, 1), "duplicate key, first given in line 1"),
        ("a: {b: 1, 'b': 2}", (1, 11), "duplicate key"),
        ("a: !!int '1'", (1, 4), "tags such as"),
        ("a: 1\n---\nb: 2", (2, 1), "another document"),
        ("a: [\n", (2, 1), "did not find expected"),
        ("a:\n\tb: 1", (2, 1), "cannot start any token"),
        ("a: \x07", (1, 1), ""),
        ("x" * 1_000_001, (1, 1), "larger than"),
    ],
)
def test_refused(text: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == place
    assert reason in caught.value.reason


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"]))
KEYS = st.text("abc 模型#:-?", min_size=1)


@given(st.dictionaries(KEYS, TEXT | st.integers() | st.lists(st.booleans())))
def test_json_is_yaml(value: dict[str, Any]) -> None:
    """Quoted JSON reads as itself, but for characters that YAML forbids."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse(text).value == value
