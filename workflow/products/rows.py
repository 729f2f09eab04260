"""rows: one split of a source, validated, in normal form, with stable ids, sorted by id.

An id is the source's own or the digest of the row's content and its occurrence, never a line number:
moving rows about changes nothing behind this product.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from workflow.errors import BuildError
from workflow.formats import BadRow, Row, reader
from workflow.formats.reading import records
from workflow.progress import say
from workflow.recipe.dataset import Source
from workflow.store.address import ADDRESS, address_of, canonical
from workflow.store.build import Job

VERSION = 1
ROWS = "rows.jsonl"
LISTED = 20
"""Bad rows that are named one by one."""
_AGAIN = re.compile(rf"({ADDRESS})\.\d+")


def make(job: Job) -> dict[str, Any]:
    """Write `rows.jsonl`.

    Returns:
        Counts: rows, rows left out as bad and the first of their reasons (by line, without the path).

    Raises:
        BuildError: More bad rows than the recipe allows, two rows with one id, or no row at all.
    """
    path = job.sources["data"]
    split = job.slice.get("split")
    source: Any = TypeAdapter(Source).validate_python(
        {**{k: v for k, v in job.slice.items() if k != "split"}, "path": str(path)}
    )
    bad: list[str] = []
    rows = _identified(_read(path, reader(source), source.bad_rows, bad), path)
    if split:
        rows = [row for row in rows if _part(row, split["test"], split["seed"]) == split["part"]]
    if not rows:
        raise BuildError(f"{path}: no rows{' in this split' if split else ''}; nothing to build from")
    with (job.out / ROWS).open("wb") as file:
        for row in sorted(rows, key=lambda row: row.id):
            file.write(canonical(row.json()) + b"\n")
    return {"rows": len(rows), "bad_rows": len(bad), "bad": bad[:LISTED]}


def _read(path: Path, read: Any, allowed: int, bad: list[str]) -> Iterator[tuple[int, Row]]:
    for line, record in records(path):
        try:
            if isinstance(record, ValueError):
                raise BadRow(str(record))
            found = list(read(record))
        except BadRow as error:
            bad.append(f"line {line}: {error}")
            if len(bad) > allowed:
                raise BuildError(_too_many(path, bad, allowed)) from None
            say(f"rows: {path}:{line}: {error}; left out")
            continue
        yield from ((line, row) for row in found)


def _too_many(path: Path, bad: list[str], allowed: int) -> str:
    line, _, reason = bad[-1].removeprefix("line ").partition(": ")
    allow = f" (this is bad row {len(bad)}, bad_rows allows {allowed})" if allowed else ""
    return f"{path}:{line}: {reason}{allow}; correct the row, or allow some with `bad_rows`"


def _identified(rows: Iterator[tuple[int, Row]], path: Path) -> list[Row]:
    occurrences: Counter[str] = Counter()
    lines: dict[str, int] = {}
    found = []
    for line, row in rows:
        if not row.id:
            row = _with_digest(row, occurrences)
        if row.id in lines:
            raise BuildError(
                f"{path}:{line}: id {row.id!r} was already used in line {lines[row.id]}; ids must be unique"
            )
        lines[row.id] = line
        found.append(row)
    return found


def _with_digest(row: Row, occurrences: Counter[str]) -> Row:
    """Name a row, and its problem, by the digest of the content; equal ones are numbered from 2."""
    content = address_of(row.json())
    occurrences[content] += 1
    again = "" if occurrences[content] == 1 else f".{occurrences[content]}"
    return replace(row, id=content + again, group=None if row.group is None else row.group + again)


def _part(row: Row, share: float, seed: int) -> str:
    """Which split a row belongs to: a hash of its problem's id, so that growing data moves no row.

    Equal rows known by their digest fall into one split, whatever their occurrence.
    """
    name = row.group or row.id
    again = _AGAIN.fullmatch(name)
    text = f"{seed}:{again[1] if again else name}".encode()
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
    return "test" if drawn < share else "train"
