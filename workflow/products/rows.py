"""rows: one split of a source, validated, in normal form, with stable ids, sorted by id.

An id is the source's own or the digest of the row's content and its occurrence, never a line number:
moving rows about changes nothing behind this product. Rows are sorted in runs of some megabytes, which
are merged: memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
from pydantic import TypeAdapter

from workflow.errors import BuildError
from workflow.formats import BadRow, Dropped, Row, reader
from workflow.formats.reading import Items, Lines, blocks
from workflow.hub_data import exported
from workflow.processes import in_order
from workflow.progress import say
from workflow.recipe.dataset import Source
from workflow.store.address import ADDRESS
from workflow.store.build import Job
from workflow.store.files import remove_tree

ROWS = "rows.jsonl"
LISTED = 20
"""Bad rows that are named one by one."""
OPEN = 200
"""Runs that are merged at once: each is an open file."""
_AGAIN = re.compile(rf"({ADDRESS})\.\d+")


class Found(NamedTuple):
    """A row in a run; runs are sorted by this."""

    id: str
    line: int
    own: bool  # else the id is the digest of the content
    body: bytes


@dataclass
class Run:
    """A sorted part of the rows, and what was wrong in that part of the source."""

    path: Path
    bad: list[tuple[int, str]] = field(default_factory=list)


def make(job: Job) -> dict[str, Any]:
    """Write `rows.jsonl`.

    Returns:
        Counts: rows, rows left out as bad and the first of their reasons (by line, without the path).

    Raises:
        BuildError: More bad rows than the recipe allows, two rows with one id, or no row at all.
    """
    path = job.sources.get("data") or exported(job.slice["path"], job.sources, job.work)
    split = job.slice.get("split")
    source: Any = TypeAdapter(Source).validate_python(
        {**{k: v for k, v in job.slice.items() if k != "split"}, "path": str(path)}
    )
    folder = job.work / "runs"
    remove_tree(folder)
    folder.mkdir(parents=True)
    bad: list[str] = []
    runs: list[Path] = []
    work = _Sorting(reader(source), split, source.bad_rows, folder)
    for run in in_order(work.run, enumerate(blocks(path)), job.resources.threads):
        _add_bad(run, bad, path, source.bad_rows)
        runs.append(run.path)
    with (job.out / ROWS).open("wb", buffering=1 << 20) as file:
        rows = _write(_merged(runs), file, path)
    remove_tree(folder)
    if not rows:
        raise BuildError(f"{path}: no rows{' in this split' if split else ''}; nothing to build from")
    return {"rows": rows, "bad_rows": len(bad), "bad": bad[:LISTED]}


@dataclass(frozen=True)
class _Sorting:
    """Turns blocks of the source into sorted runs."""

    read: Callable[[Any], Iterator[Row | Dropped]]
    split: dict[str, Any] | None
    allowed: int
    folder: Path

    def run(self, numbered: tuple[int, Lines | Items]) -> Run:
        number, block = numbered
        run = Run(self.folder / f"{number}")
        found = sorted(self._rows(block, run))
        with run.path.open("wb", buffering=1 << 20) as file:
            _write_run(file, found)
        return run

    def _rows(self, block: Lines | Items, run: Run) -> Iterator[Found]:
        for line, record in block.records():
            try:
                if isinstance(record, ValueError):
                    raise BadRow(str(record))
                rows = [self._found(line, row) for row in self.read(record) if isinstance(row, Row)]
            except BadRow as error:
                run.bad.append((line, str(error)))
                if len(run.bad) > self.allowed:
                    return
                continue
            yield from (found for found in rows if found)

    def _found(self, line: int, row: Row) -> Found | None:
        try:
            body = orjson.dumps(row.json(), option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise BadRow(f"cannot be written as JSON ({error})") from None
        name = row.id
        if not name:
            name = hashlib.blake2b(body, digest_size=16).hexdigest()
            body = body.replace(b'"id":""', f'"id":"{name}"'.encode(), 1)
        if self.split and _part(row.group or name, self.split) != self.split["part"]:
            return None
        return Found(name, line, bool(row.id), body)


def _add_bad(run: Run, bad: list[str], path: Path, allowed: int) -> None:
    for line, reason in run.bad:
        bad.append(f"line {line}: {reason}")
        if len(bad) > allowed:
            allow = f" (this is bad row {len(bad)}, bad_rows allows {allowed})" if allowed else ""
            raise BuildError(
                f"{path}:{line}: {reason}{allow}; correct the row, or allow some with `bad_rows`"
            )
        say(f"rows: {path}:{line}: {reason}; left out")


def _part(name: str, split: dict[str, Any]) -> str:
    """Which split a row belongs to: a hash of its problem's id, so that growing data moves no row.

    Equal rows known by their digest fall into one split, whatever their occurrence.
    """
    again = _AGAIN.fullmatch(name)
    text = f"{split['seed']}:{again[1] if again else name}".encode()
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
    return "test" if drawn < split["test"] else "train"


def _write_run(file: IO[bytes], rows: Iterable[Found]) -> None:
    for row in rows:
        file.write(orjson.dumps(row[:3]) + b"\n" + row.body + b"\n")


def _read_run(file: IO[bytes]) -> Iterator[Found]:
    for head in file:
        name, line, own = orjson.loads(head)
        yield Found(name, line, own, file.readline()[:-1])


def _merged(runs: list[Path]) -> Iterator[Found]:
    """All rows of all runs, sorted; of many runs, OPEN become one first."""
    while len(runs) > OPEN:
        joined = runs[0].with_name(f"{runs[0].name}+")
        with joined.open("wb", buffering=1 << 20) as file:
            _write_run(file, _merged(runs[:OPEN]))
        for run in runs[:OPEN]:
            run.unlink()
        runs = [*runs[OPEN:], joined]
    with ExitStack() as stack:
        yield from heapq.merge(
            *[_read_run(stack.enter_context(run.open("rb", buffering=1 << 16))) for run in runs]
        )


def _numbered(rows: Iterator[Found]) -> Iterator[Found]:
    """Give equal rows without an id of their own different ones."""
    equal: list[Found] = []
    for row in rows:
        if equal and (row.own or row.id != equal[0].id):
            yield from _occurrences(equal)
            equal = []
        if row.own:
            yield row
        else:
            equal.append(row)
    yield from _occurrences(equal)


def _occurrences(equal: list[Found]) -> Iterator[Found]:
    """Name a row, and its problem, by the digest of the content; equal ones are numbered from 2."""
    again = sorted(["", *(f".{number}" for number in range(2, len(equal) + 1))])
    for row, ending in zip(equal, again, strict=False):
        if ending:
            content = orjson.loads(row.body)
            content["id"] += ending
            if content["group"] is not None:
                content["group"] += ending
            body = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
            row = row._replace(id=content["id"], body=body)
        yield row


def _write(rows: Iterator[Found], file: IO[bytes], path: Path) -> int:
    """Write the rows of a merge, equal ones numbered; returns how many."""
    count = 0
    last = Found("", 0, False, b"")
    for row in _numbered(rows):
        if row.id <= last.id:
            raise BuildError(
                f"{path}:{row.line}: id {row.id!r} was already used in line {last.line}; ids must be unique"
            )
        file.write(row.body + b"\n")
        count += 1
        last = row
    return count
