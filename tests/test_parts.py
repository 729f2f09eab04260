"""Rows read in parts, by several processes: the same results, and the same refusals, as read at once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from test_grouped_scores import grouped
from test_scores import build, lines

from workflow import results
from workflow.errors import BuildError
from workflow.products import scores, voted
from workflow.results import AskedRow, Prediction, VotedLine, parts, read_together
from workflow.store.build import Job, Resources
from workflow.store.files import digests_of


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow.results.PART", 7)


def by_parts(files: list[tuple[Path, Any]]) -> Iterator[Any]:
    for part in parts([path for path, _ in files]):
        yield from read_together(*files, part=part)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 13, 14, 15, 60])
def test_parts_are_the_whole(tmp_path: Path, count: int) -> None:
    made = [{"id": f"r{n:03d}", "draws": [{"text": "é" * n}]} for n in range(count)]
    path = tmp_path / "it.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in made))
    files: list[tuple[Path, Any]] = [(path, Prediction), (path, Prediction)]
    assert list(by_parts(files)) == list(read_together(*files))
    assert len(parts([path])) == -(-count // 7)


def outcome(records: Iterator[Any]) -> str:
    try:
        return f"{sum(1 for _ in records)} rows"
    except BuildError as error:
        return str(error)


def damaged(body: list[bytes], chance: random.Random) -> list[bytes]:
    """A file with one thing wrong, somewhere."""
    body, place = list(body), chance.randrange(len(body))
    match chance.randrange(7):
        case 0:
            del body[place]
        case 1:
            body.insert(place, body[place])
        case 2:
            body = body[:place]
        case 3:
            other = chance.randrange(len(body))
            body[place], body[other] = body[other], body[place]
        case 4:
            cut = chance.randrange(len(body[place]))
            body[place] = body[place][:cut] + b"\n"
        case 5:
            at = chance.randrange(len(body[place]))
            body[place] = body[place][:at] + bytes([chance.randrange(256)]) + body[place][at + 1 :]
        case 6:
            body[place] = body[place].replace(b'"draws"', b'"drawn"').replace(b'"votes"', b'"vote"')
    return body


def test_refusals_are_the_same(tmp_path: Path) -> None:
    """Whatever is wrong with whichever file: the very same message."""
    job, chance, refused = build(tmp_path), random.Random(1), set()
    files: list[tuple[Path, Any]] = [
        (job.inputs["rows"] / "rows.jsonl", AskedRow),
        (job.inputs["draws"] / "predictions.jsonl", Prediction),
        (job.inputs["voted"] / "voted.jsonl", VotedLine),
    ]
    whole = {path: path.read_bytes() for path, _ in files}
    for _ in range(300):
        path = chance.choice(files)[0]
        path.write_bytes(b"".join(damaged(whole[path].splitlines(keepends=True), chance)))
        expected = outcome(read_together(*files))
        assert outcome(by_parts(files)) == expected
        refused.add(expected.split(": ")[1][:9] if ": " in expected else expected)
        path.write_bytes(whole[path])
    assert len(refused) > 10


def test_results_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = build(tmp_path)
    grouped(job)
    job.slice["metrics"] = ["accuracy", "f1", "bleu"]
    job.slice["tokenize"] = "char"
    found = []
    for part, threads in ((1000, 1), (7, 1), (7, 2)):
        monkeypatch.setattr(results, "PART", part)
        folders = [tmp_path / f"{name}-{part}-{threads}" for name in ("voted", "scores")]
        for folder in folders:
            folder.mkdir()
        resources = Resources(threads=threads)
        rule = {"answer": job.slice["answer"], "members": [], "weights": None, "ties": "first", "seed": None}
        inputs = {"rows": job.inputs["rows"], "voter own": job.inputs["draws"]}
        voting = Job(rule, inputs, {}, folders[0], tmp_path, tmp_path, {}, resources)
        scoring = replace(
            job, out=folders[1], inputs={**job.inputs, "voted": folders[0]}, resources=resources
        )
        counts = voted.make(voting), scores.make(scoring)
        found.append((counts, [digests_of(folder) for folder in folders]))
    assert found[0] == found[1] == found[2]
    assert len(lines(folders[1] / "items.jsonl")) > 40


# --- what is looked at is refused as pydantic, which other records are read by, refuses it -----------------


class Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class Text(Strict):
    text: str
    finish_reason: str | None = None
    logprob: float | None = None


class Line(Strict):
    id: str
    draws: Annotated[list[Text], Field(min_length=1)]


class Row(Strict):
    id: str
    prompt: dict[str, Any]
    group: str | None = None
    index: Annotated[int, Field(ge=0)] | None = 0
    turns: list[dict[str, Any]] = []
    gold: list[str] = []


VALUES: list[Any] = [None, "x", "", 0, -1, 1.5, True, [], ["x"], [1], {}, {"text": "y"}, [{"text": 1}], [{}]]


def accepted(model: Any, line: bytes, **how: bool) -> Any:
    try:
        return model.model_validate_json(line, **how)
    except ValueError as error:
        assert isinstance(error, ValidationError) or model in (AskedRow, Prediction)
        return None


def test_a_line_is_accepted_as_pydantic_accepts_it() -> None:
    chance, seen = random.Random(2), [0, 0]
    pairs: list[tuple[Any, Any, list[str]]] = [
        (AskedRow, Row, ["id", "prompt", "group", "index", "turns", "gold", "other"]),
        (Prediction, Line, ["id", "draws", "other"]),
    ]
    for _ in range(4000):
        view, model, keys = chance.choice(pairs)
        draws: list[Any] = [{"text": "t", "logprob": -1, "x": []}]
        value: dict[str, Any] = {"id": "a", "prompt": {"q": 1}, "draws": draws}
        for key in chance.sample(keys, chance.randrange(3)):
            value[key] = deepcopy(chance.choice(VALUES))
        if chance.random() < 0.2:
            del value[chance.choice(list(value))]
        if chance.random() < 0.3:
            draws.append({"text": "x", chance.choice(["logprob", "finish_reason"]): chance.choice(VALUES)})
        line = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
        if chance.random() < 0.2:
            line = line[: chance.randrange(len(line))]
        mine, theirs = accepted(view, line), accepted(model, line, strict=True)
        assert (mine is None) == (theirs is None), line
        seen[mine is None] += 1
        if mine is not None and view is AskedRow:
            assert {name: getattr(mine, name) for name in Row.model_fields} == theirs.model_dump()
    assert min(seen) > 1000
