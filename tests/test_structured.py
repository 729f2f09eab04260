"""Metrics of structured answers, and those of a user's own package."""

from __future__ import annotations

import json
import random
from pathlib import Path

import jsonschema
import pytest

from workflow.errors import BuildError
from workflow.metrics.own import Own
from workflow.metrics.structure import JsonValid, SchemaValid
from workflow.results import AskedRow

WORDS = ["cat", "é", "😀", '"', "\\", "x y"]


def row(*gold: str) -> AskedRow:
    return AskedRow(id="r", prompt={}, gold=list(gold))


def test_json_is_valid() -> None:
    chance = random.Random(5)
    known = {"": 0, "{}": 1, " [1, 2] \n": 1, "```json\n{}\n```": 0, "NaN": 0, "[-Infinity]": 0, "'a'": 0,
             "1": 1, '{"a": 1,}': 0, '"\\ud800"': 1, "[" * 99_999: 0, "\ufeff{}": 0, '"好😀"': 1}  # fmt: skip
    metric = JsonValid()
    assert {text: metric.score(row(), text) for text in known} == known
    for _ in range(1000):
        value = {"n": chance.randrange(9), "s": chance.choice(WORDS), "l": [None, chance.random()]}
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
        cut = text[: chance.randrange(len(text) + 1)]
        assert metric.score(row(), text) == 1
        assert metric.score(row(), cut) == (cut == text)


SHAPE = {
    "type": "object", "required": ["n"], "additionalProperties": False,
    "properties": {"n": {"type": "integer", "maximum": 5}, "s": {"$ref": "#/$defs/word"}},
    "$defs": {"word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}},
}  # fmt: skip


def test_schema_is_valid(tmp_path: Path) -> None:
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    metric, chance = SchemaValid(tmp_path / "shape.json"), random.Random(6)
    validator, found = jsonschema.Draft202012Validator(SHAPE), []
    for _ in range(1000):
        keys = chance.sample(["n", "s", "x"], chance.randrange(4))
        value = {key: chance.choice([1, 9, 2.0, 10**30, "cat", "dogs", "", "好", None, []]) for key in keys}
        found.append(metric.score(row(), json.dumps(value)))
        assert found[-1] == validator.is_valid(value), value
    assert 0 < sum(found) < 1000
    assert metric.score(row(), "not json") == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not a JSON Schema"), ('{"type": "thing"}', "not a JSON Schema"),
     ('{"$ref": "http://127.0.0.1:9/x.json"}', "refers to http"),
     ('{"$ref": "file:///etc/passwd"}', "refers to file")],
)  # fmt: skip
def test_bad_schemas(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "shape.json").write_text(text)
    with pytest.raises(BuildError, match=rf"shape\.json.*{reason}"):
        SchemaValid(tmp_path / "shape.json")


CODE = """
def brevity(row, text):
    return 1 / (1 + abs(len(text) - len(row["gold"][0])))

def polite(row, text):
    return 2 if text == "two" else "please" in text

polite.needs_gold = False
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny package, installed as pip leaves one."""
    (tmp_path / "my_scores.py").write_text(CODE)
    about = tmp_path / "my_scores-0.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-scores\nVersion: 0.3\n")
    points = "brevity = my_scores:brevity\npolite = my_scores:polite\ngone = my_scores:gone\n"
    (about / "entry_points.txt").write_text(f"[tunemake.metrics]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_a_metric_of_an_installed_package() -> None:
    brevity, polite = Own("brevity", "0.3"), Own("polite", "0.3")
    assert (brevity.score(row("abc"), "abcd"), brevity.needs_gold) == (0.5, True)
    assert (polite.score(row(), "yes please"), polite.needs_gold) == (1, False)
    assert brevity.signature == "my-scores:0.3"
    with pytest.raises(BuildError, match="polite gives row 'r' 2.0, not 0 to 1"):
        polite.score(row(), "two")
    with pytest.raises(BuildError, match="brevity fails on row 'r': IndexError"):
        brevity.score(row(), "")
    for name, version, reason in (
        ("brevity", "0.4", "wants version 0.4, installed is my-scores 0.3"),
        ("gone", "0.3", "cannot be imported"),
        ("nothing", "1", "no installed package registers 'nothing'"),
    ):
        with pytest.raises(BuildError, match=reason):
            Own(name, version)
