"""Which line of its source each row came from: what a build of `rows` leaves for the next one of its slice.

It lies at `store/pieces/rows/<context>/<key>.<mark>.origins`: the *context* is all that decides which rows a
line gives, the key is that of the product, the mark stands for the place of the source. A record begins with
its own digest, so that a damaged one is none; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from workflow.line_index import Digests, as_digests
from workflow.sorting import Cut, Part, mark
from workflow.store.files import READ_ONLY, write_atomic

RECORD = 1
"""Raised when the record changes; part of the context."""
ENDING = ".origins"
_SUM = 64
"""Characters of a SHA-256 in hex."""


@dataclass
class Origins:
    """What a build found in a source of JSON lines, which are numbered from 1."""

    part: Part
    """The rows: of each shard the cut, the end, and the line of each row."""
    digests: Digests
    """[lines], of their bytes."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Line and reason of each record that gives no rows."""
    left_out: dict[str, list[int]] = field(default_factory=dict)
    """Reason -> the line of each row that was left out."""

    def write(self, folder: Path, key: str, source: Path) -> None:
        """Keep this in the folder of its context."""
        part = {"cuts": [*map(tuple, self.part.cuts)], "ends": self.part.ends, "lines": self.part.lines}
        rest = {"bad": self.bad, "left_out": self.left_out}
        found = orjson.dumps({**part, **rest}, option=orjson.OPT_SORT_KEYS)
        body = found + b"\n" + self.digests.tobytes()
        write_atomic(
            folder / f"{key}{_of(source)}", hashlib.sha256(body).hexdigest().encode() + body, READ_ONLY
        )


def kept(folder: Path, source: Path) -> Iterator[tuple[str, Origins]]:
    """Key and record of the products of a context: those of this source first, the newest of them first."""
    found: list[tuple[bool, float, Path]] = []
    for path in folder.glob(f"*{ENDING}"):
        with suppress(FileNotFoundError):  # swept a moment ago
            found.append((path.name.endswith(_of(source)), path.stat().st_mtime, path))
    for _, _, path in sorted(found, reverse=True):
        if origins := _read(path):
            yield path.name.partition(".")[0], origins


def _of(source: Path) -> str:
    return f".{mark(str(source.absolute()))}{ENDING}"


def _read(path: Path) -> Origins | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data[_SUM:]).hexdigest().encode() != data[:_SUM]:
        return None
    line, _, digests = data[_SUM:].partition(b"\n")
    found = orjson.loads(line)
    cuts = [Cut(size, label) for size, label in found["cuts"]]
    bad = [(number, reason) for number, reason in found["bad"]]
    part = Part(cuts, found["ends"], found["lines"])
    return Origins(part, as_digests(digests), bad, found["left_out"])
