"""Products `rows` made one after another of a file that is edited in between."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.mending import Mending
from workflow.origins import ENDING
from workflow.products import rows
from workflow.store.build import Job
from workflow.store.files import remove_tree

SLICE = {
    "format": "columns",
    "prompt": {"q": "l.q"},
    "explode": "l",
    "where": [{"field": "l.q", "none_of": ["drop"]}],
    "bad_rows": 3,
}


class Place:
    """A folder where products `rows` are made one after another."""

    def __init__(self, root: Path, **chosen: Any):
        self.root, self.slice, self.numbers = root, {**SLICE, **chosen}, count(1)
        root.mkdir(exist_ok=True)

    def make(self, body: bytes, pieces: str = "pieces", name: str = "data.jsonl", key: str = "") -> Any:
        """Counts, files and origins, or the error, of a build of these bytes."""
        key = key or f"{next(self.numbers):04d}"
        data, out, work = self.root / name, self.root / f"rows/{key}.tmp", self.root / f"work/{key}"
        data.write_bytes(body)
        remove_tree(out)
        out.mkdir(parents=True)
        work.mkdir(parents=True, exist_ok=True)
        try:
            counts = rows.make(Job(self.slice, {}, {"data": data}, out, work, self.root / pieces))
        except BuildError as error:
            return str(error)
        assert not list(work.iterdir())
        made = {path.name: path.read_bytes() for path in out.iterdir()}
        out.rename(out.with_name(key))
        return counts, made, [known(path) for path in self.origins(pieces, f"{key}.*{ENDING}")]

    def fresh(self, body: bytes) -> Any:
        """The same without knowledge of a former build."""
        return self.make(body, f"none-{next(self.numbers)}")

    def origins(self, pieces: str = "pieces", name: str = f"*{ENDING}") -> list[Path]:
        return sorted((self.root / pieces).rglob(name))


def known(origins: Path) -> Any:
    """What a record says; of equal rows each may stand for the others."""
    found, digests = origins.read_bytes()[64:].split(b"\n", 1)
    record = json.loads(found)
    return {**record, "lines": [sorted(lines) for lines in record["lines"]]}, digests


class Watched:
    """How often rows were made from nothing, and how many lines were parsed one by one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.anew, self.lines = 0, 0
        anew, parsed = rows._anew, Mending._parsed

        def counted(*arguments: Any) -> Any:
            self.anew += 1
            return anew(*arguments)

        def watched(self_: Mending, index: Any, lines: Any) -> Any:
            self.lines += len(lines)
            return parsed(self_, index, lines)

        monkeypatch.setattr(rows, "_anew", counted)
        monkeypatch.setattr(Mending, "_parsed", watched)


def line(*texts: object, **more: Any) -> bytes:
    return json.dumps({**more, "l": [{"q": str(text)} for text in texts]}).encode()


def lines_of(numbers: range) -> list[bytes]:
    return [line(number, f"b{number}") for number in numbers]


def edited(lines: list[bytes], kind: str, place: float, new: bytes) -> list[bytes]:
    at = int(place * len(lines))
    if kind == "insert":
        return [*lines[:at], new, *lines[at:]]
    if kind == "delete" or not lines:
        return [*lines[:at], *lines[at + 1 :]]
    if kind == "replace":
        return [*lines[:at], new, *lines[at + 1 :]]
    if kind == "twice":
        return [*lines, lines[at]]
    if kind == "move":
        return [*lines[:at], *lines[at + 1 :], lines[at]]
    return [*lines[at:], *lines[:at]]
