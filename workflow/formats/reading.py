"""Reading JSON lines, JSON lists and CSV record by record, each with the line it starts at.

A file is never read whole: it comes as blocks of some megabytes, which may be parsed by several processes.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from workflow.errors import BuildError

Record = tuple[int, Any]
"""Line number (from 1) and the parsed value, or the ValueError that parsing raised."""

BLOCK = 8 << 20
"""Bytes of a block."""
LONGEST = 64 << 20
"""Characters of the longest item of a JSON list."""
_BOM = b"\xef\xbb\xbf"
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Lines:
    """A block of JSON lines, read by whoever parses it."""

    path: Path
    begin: int
    size: int
    first: int

    def records(self) -> Iterator[Record]:
        """Parse the lines."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            body = file.read(self.size)
        if not self.begin:
            body = body.removeprefix(_BOM)
        for number, line in enumerate(body.split(b"\n"), start=self.first):  # at \n only, as JSON lines ask
            if line and not line.isspace():
                yield number, _value(line)


@dataclass(frozen=True)
class Items:
    """A block of values that are JSON texts, or of records that are parsed already."""

    values: list[Record]

    def records(self) -> Iterator[Record]:
        """Parse the texts."""
        for line, value in self.values:
            yield line, _value(value) if isinstance(value, str) else value


def records(path: Path) -> Iterator[Record]:
    """All records of a data file; see `blocks`."""
    for block in blocks(path):
        yield from block.records()


def blocks(path: Path) -> Iterator[Lines | Items]:
    """A data file in parts; the format is taken from its ending.

    `.jsonl` and `.json` may each hold JSON lines or one JSON list: upstream files are often misnamed.

    Raises:
        BuildError: Unknown ending, or the file as a whole cannot be read.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        yield from _together(_csv(path))
    elif ending in (".json", ".jsonl"):
        if _first_character(path) == b"[":
            yield from _together(_json_list(path))
        else:
            yield from _json_lines(path)
    else:
        raise BuildError(f"{path}: data files end in .jsonl, .json or .csv")


def _first_character(path: Path) -> bytes:
    with path.open("rb") as file:
        begin = file.read(1 << 16).removeprefix(_BOM).lstrip()
        while not begin and (more := file.read(1 << 16)):
            begin = more.lstrip()
    return begin[:1]


def _json_lines(path: Path) -> Iterator[Lines]:
    begin, first = 0, 1
    with path.open("rb") as file:
        while body := file.read(BLOCK) + file.readline():
            yield Lines(path, begin, len(body), first)
            begin, first = begin + len(body), first + body.count(b"\n")


def _together(found: Iterable[tuple[int, Any, int]]) -> Iterator[Items]:
    """Records, each with its size, as blocks."""
    values: list[Record] = []
    total = 0
    for line, value, size in found:
        values.append((line, value))
        total += size
        if total >= BLOCK:
            yield Items(values)
            values, total = [], 0
    if values:
        yield Items(values)


class _Window:
    """The text of a file from some place on; more of it is read as it is needed."""

    def __init__(self, path: Path):
        self.path, self.file = path, path.open("rb")
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.position, self.line = "", 0, 1
        self.bytes, self.ended = 0, False
        self.counted = 0  # how far the lines of `text` have been counted

    def more(self) -> None:
        """Forget what is behind, read at least as much as is left ahead."""
        self.pass_over(self.position)
        self.text, self.position, self.counted = self.text[self.position :], 0, 0
        data = self.file.read(max(BLOCK // 8, len(self.text)))
        pending = len(self.decoder.getstate()[0])
        try:
            text = self.decoder.decode(data, not data)
        except UnicodeDecodeError as error:
            place = self.bytes - pending + error.start
            raise BuildError(f"{self.path}: not UTF-8 text (byte {place})") from None
        self.text += text if self.bytes else text.removeprefix("\ufeff")
        self.bytes, self.ended = self.bytes + len(data), not data

    def pass_over(self, position: int) -> int:
        """The line at a place, which becomes the place reached."""
        self.line += self.text.count("\n", self.counted, position)
        self.position = self.counted = position
        return self.line

    def peek(self) -> str:
        """The next character that is no white space, "" at the end of the file."""
        while True:
            self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            self.more()

    def value(self) -> str:
        """The JSON value that begins here, passed over."""
        while True:
            try:
                end = _DECODER.raw_decode(self.text, self.position)[1]
                if end < len(self.text) or self.ended:  # else it may be the beginning of a number
                    break
            except json.JSONDecodeError as error:
                if self.ended or len(self.text) - self.position > LONGEST:
                    cut = " (the list is cut off)" if error.pos >= len(self.text) else ""
                    raise BuildError(f"{self.path}:{self.line}: not JSON: {error.msg}{cut}") from None
            except (ValueError, RecursionError) as error:
                raise BuildError(f"{self.path}:{self.line}: not JSON: {error}") from None
            self.more()
        value = self.text[self.position : end]
        self.pass_over(end)
        return value


def _json_list(path: Path) -> Iterator[tuple[int, str, int]]:
    """Items of one JSON list, cut out one by one so that each has a line."""
    window = _Window(path)
    with window.file:
        window.peek()
        window.pass_over(window.position + 1)
        more = window.peek() != "]"
        while more:
            line = window.pass_over(window.position)
            value = window.value()
            yield line, value, len(value)
            behind = window.peek()
            more = behind == ","
            if more:
                window.pass_over(window.position + 1)
                window.peek()
            elif behind != "]":
                raise BuildError(f"{path}:{line}: the JSON list is cut off after this item")
        window.pass_over(window.position + 1)
        if window.peek():
            raise BuildError(f"{path}: there is more text behind the end of the JSON list")


def _value(text: str | bytes) -> Any:
    """Strict JSON: no NaN, no lone surrogates, which are no text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg}")


def _csv(path: Path) -> Iterator[tuple[int, Any, int]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            if doubled := sorted(name for name in set(names) if names.count(name) > 1):
                raise BuildError(f"{path}:1: two columns are called {doubled[0]!r}")
            line = reader.line_num + 1
            for values in reader:
                if values:  # else an empty line
                    yield line, _table_row(names, values), sum(map(len, values))
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
        except csv.Error as error:
            raise BuildError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _table_row(names: list[str], values: list[str]) -> dict[str, str] | ValueError:
    if len(values) > len(names):
        return ValueError(f"{len(values)} values for {len(names)} columns")
    return dict(zip(names, values, strict=False))
