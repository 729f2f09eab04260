"""Reading data files record by record, each with the line it starts at.

A file is never read whole: it comes as blocks of some megabytes, which may be parsed by several processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from os import SEEK_END
from pathlib import Path
from typing import Any

import orjson

from workflow.errors import BuildError
from workflow.formats import json_list, tables
from workflow.formats.opening import ending, is_gzip, opened, whole

Record = tuple[int, Any]
"""Line number (from 1) and the parsed value, or the ValueError that parsing raised."""

BLOCK = 8 << 20
"""Bytes of a block."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """A block of JSON lines, read by whoever parses it."""

    path: Path
    begin: int
    size: int
    first: int

    @cached_property
    def lines(self) -> list[bytes]:
        """The lines without their ends, which are \\n only, as JSON lines ask."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            body = file.read(self.size)
        return body.removesuffix(b"\n").split(b"\n")

    def records(self) -> Iterator[Record]:
        """Parse the lines."""
        for number, line in enumerate(self.lines, start=self.first):
            if line and not line.isspace():
                yield number, _value(line)


@dataclass(frozen=True)
class Items:
    """A block of values that are JSON texts, or of records that are parsed already."""

    values: list[Record]

    def records(self) -> Iterator[Record]:
        """Parse the texts."""
        for line, value in self.values:
            yield line, _value(value) if isinstance(value, (str, bytes)) else value


def records(path: Path) -> Iterator[Record]:
    """All records of a data file; see `blocks`."""
    for block in blocks(path):
        yield from block.records()


def blocks(path: Path) -> Iterator[Lines | Items]:
    """A data file in parts; the format is taken from its ending.

    `.jsonl` and `.json` may each hold JSON lines, one JSON list, or one JSON object: upstream files are
    often misnamed.

    Raises:
        BuildError: Unknown ending, or the file as a whole cannot be read.
    """
    with whole(path):
        if ending(path) in (".json", ".jsonl"):
            yield from _json(path)
        elif ending(path) in tables.READERS:
            yield from _together(tables.READERS[ending(path)](path))
        else:
            raise BuildError(
                f"{path}: data files end in .jsonl, .json, .csv or .tsv, perhaps with .gz behind, or .parquet"
            )


def _json(path: Path) -> Iterator[Lines | Items]:
    first = _first_character(path)
    if first == b"[":
        yield from _together(json_list.items(path))
    elif first == b"{" and (one := _one_object(path)) is not None:
        yield Items([(1, one)])
    elif is_gzip(path):
        yield from _together(_packed_lines(path))
    else:
        yield from _json_lines(path)


def _first_character(path: Path) -> bytes:
    with opened(path) as file:
        begin = file.read(1 << 16).removeprefix(_BOM).lstrip()
        while not begin and (more := file.read(1 << 16)):
            begin = more.lstrip()
    return begin[:1]


def _one_object(path: Path) -> Any:
    """The object that a file of several lines holds as a whole; None if it holds lines."""
    with opened(path) as file:
        begin = file.readline().removeprefix(_BOM)
        while not begin.strip():
            begin = file.readline()
        if not isinstance(_value(begin), ValueError):
            return None
        value = _value(begin + file.read(json_list.LONGEST))
    return None if isinstance(value, ValueError) else value


def _json_lines(path: Path) -> Iterator[Lines]:
    first = 1
    with path.open("rb") as file:
        for begin, size in stretches(path):
            yield Lines(path, begin, size, first)
            file.seek(begin)
            first += file.read(size).count(b"\n")


def stretches(path: Path) -> Iterator[tuple[int, int]]:
    """Where a file of lines can be divided: begin and size of each part, without the byte order mark."""
    with path.open("rb") as file:
        end = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        while True:
            begin = end
            file.seek(begin + BLOCK)
            file.readline()
            end = min(file.tell(), file.seek(0, SEEK_END))
            if begin == end:
                return
            yield begin, end - begin


def _packed_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """The lines of a compressed file, which only one process can read."""
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if text and not text.isspace():
                yield number, text, len(text)


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


def _value(text: str | bytes) -> Any:
    """Strict JSON: no NaN, no lone surrogates, which are no text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg}")
