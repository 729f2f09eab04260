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

_DECODER = json.JSONDecoder()
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
            yield number, _value(text)


def _json_list(path: Path) -> Iterator[Record]:
    """Items of one JSON list, decoded one by one so that each has a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
    position, line, counted = _skip(text, _skip(text, 0) + 1), 1, 0
    more = text[position : position + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, position), position
        end = _end_of_value(text, position, f"{path}:{line}")
        yield line, _value(text[position:end])
        position = _skip(text, end)
        more = text[position : position + 1] == ","
        if more:
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise BuildError(f"{path}:{line}: the JSON list is cut off after this item")
    if _skip(text, position + 1) < len(text):
        raise BuildError(f"{path}: there is more text behind the end of the JSON list")


def _end_of_value(text: str, position: int, place: str) -> int:
    """Where the JSON value that begins at `position` ends."""
    try:
        return _DECODER.raw_decode(text, position)[1]
    except json.JSONDecodeError as error:
        cut = " (the list is cut off)" if error.pos >= len(text) else ""
        raise BuildError(f"{place}: not JSON: {error.msg}{cut}") from None
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{place}: not JSON: {error}") from None


def _value(text: str | bytes) -> Any:
    """Strict JSON: no NaN, no lone surrogates, which are no text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return ValueError(f"not JSON: {error.msg}")


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.reader(file, strict=True)
            names = next(reader, [])
            if doubled := sorted(name for name in set(names) if names.count(name) > 1):
                raise BuildError(f"{path}:1: two columns are called {doubled[0]!r}")
            line = reader.line_num + 1
            for values in reader:
                if values:  # else an empty line
                    yield line, _table_row(names, values)
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
        except csv.Error as error:
            raise BuildError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _table_row(names: list[str], values: list[str]) -> dict[str, str] | ValueError:
    if len(values) > len(names):
        return ValueError(f"{len(values)} values for {len(names)} columns")
    return dict(zip(names, values, strict=False))
