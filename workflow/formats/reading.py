"""Reading JSON lines, JSON lists and CSV record by record, each with the line it starts at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from workflow.errors import BuildError

Record = tuple[int, Any]
"""Line number (from 1) and the parsed value, or the ValueError that parsing raised."""

csv.field_size_limit(1 << 30)


def records(path: Path) -> Iterator[Record]:
    """All records of a data file; the format is taken from its ending.

    `.jsonl` and `.json` may each hold JSON lines or one JSON list: upstream files are often misnamed.

    Raises:
        BuildError: Unknown ending, or the file as a whole cannot be read.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        yield from _csv(path)
    elif ending in (".json", ".jsonl"):
        yield from _json_list(path) if _first_character(path) == b"[" else _json_lines(path)
    else:
        raise BuildError(f"{path}: data files end in .jsonl, .json or .csv")


def _first_character(path: Path) -> bytes:
    with path.open("rb") as file:
        for line in file:
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if text:
                return text[:1]
    return b""


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):  # splits at \n only, as JSON lines ask
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                yield number, orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield number, ValueError(f"not JSON: {error}")


def _json_list(path: Path) -> Iterator[Record]:
    """Items of one JSON list, decoded one by one so that each has a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
    decoder, position, line, counted = json.JSONDecoder(), _skip(text, 0) + 1, 1, 0
    while True:
        position = _skip(text, position)
        if text[position : position + 1] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            raise BuildError(f"{path}:{line}: not JSON: {error}") from None
        yield line, value
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            raise BuildError(f"{path}:{line}: the JSON list is cut off after this item")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file, restkey="", strict=True)
            doubled = {n for n in reader.fieldnames or [] if (reader.fieldnames or []).count(n) > 1}
            if doubled:
                raise BuildError(f"{path}:1: two columns are called {sorted(doubled)[0]!r}")
            line = reader.line_num + 1
            for row in reader:
                yield line, ValueError("more values than columns") if "" in row else row
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
        except csv.Error as error:
            raise BuildError(f"{path}:{reader.line_num}: not CSV: {error}") from None
