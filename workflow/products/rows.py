"""rows: one split of a source, validated, in normal form, with stable ids, sorted by id.

An id is the source's own or the digest of the row's content and its occurrence, never a line number:
moving rows about changes nothing behind this product. Where the sorted rows are cut into shards is noted
beside them, with a label for each shard's rows, so that `shards` need not read rows that it knows.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from workflow.errors import BuildError
from workflow.formats import BadRow, Dropped, Row, reader
from workflow.formats.reading import Items, Lines, blocks
from workflow.hub_data import exported
from workflow.line_index import as_digests, digests_of
from workflow.mending import Mending, Parsed, Unusual
from workflow.origins import RECORD, Origins, kept
from workflow.processes import in_order
from workflow.products import VERSIONS
from workflow.progress import say
from workflow.recipe.dataset import Source
from workflow.sorting import Found, Part, Run, SameId, merge, write_cuts, write_run
from workflow.store.address import ADDRESS, address_of
from workflow.store.build import Job
from workflow.store.files import remove_tree

ROWS, CUTS, RUNS = "rows.jsonl", "cuts.json", "runs"
LISTED = 20
"""Bad rows that are named one by one."""
_AGAIN = re.compile(rf"({ADDRESS})\.\d+")


@dataclass
class Read:
    """What came of one block of the source: sorted rows, what was wrong, the lines' digests."""

    run: Run
    found: Parsed
    digests: bytes


def make(job: Job) -> dict[str, Any]:
    """Write `rows.jsonl` and `cuts.json`.

    Returns:
        Counts: rows, rows left out as bad and the first of their reasons (by line, without the path), rows
        left out because the recipe says so, by reason (of both splits, where one file is split).

    Raises:
        BuildError: More bad rows than the recipe allows, two rows with one id, or no row at all.
    """
    path = job.sources.get("data") or exported(job.slice["path"], job.sources, job.work)
    work = _reading(job, path)
    origins = _mended(job, work, path) or _anew(job, work, path)
    rows = origins.part.rows
    if not rows:
        in_split = " in this split" if work.split else ""
        raise BuildError(f"{path}: no rows{in_split}; nothing to build from")
    write_cuts(job.out / CUTS, origins.part.cuts)
    if len(origins.digests):
        origins.write(_context(job, work), job.work.name, path)
    left_out = {reason: len(lines) for reason, lines in sorted(origins.left_out.items())}
    for reason, number in Counter(left_out).most_common():
        say(f"rows: {number} left out: {reason}")
    return {
        "rows": rows,
        "bad_rows": len(origins.bad),
        "bad": [f"line {line}: {reason}" for line, reason in origins.bad[:LISTED]],
        "left_out": left_out,
    }


def _reading(job: Job, path: Path) -> _Reading:
    split = job.slice.get("split")
    source: Any = TypeAdapter(Source).validate_python(
        {**{k: v for k, v in job.slice.items() if k != "split"}, "path": str(path)}
    )
    work = _Reading(reader(source), split, source.bad_rows, job.work / RUNS)
    if split and split.get("test_rows"):
        return replace(work, below=_bound(work, path, split["test_rows"], job.resources.threads))
    return work


def _context(job: Job, work: _Reading) -> Path:
    """Where builds of this slice leave where their rows came from."""
    versions = {"version": VERSIONS["rows"], "record": RECORD}
    return job.pieces / "rows" / address_of({**versions, "slice": job.slice, "below": work.below})


def _mended(job: Job, work: _Reading, path: Path) -> Origins | None:
    """The rows of a former build with what changed in the source since; None where that is of no use."""
    for key, origins in kept(_context(job, work), path):
        former = job.out.with_name(key) / ROWS
        if former.exists():
            try:
                mending = Mending(former, origins, work.parsed, job.resources.threads)
                found = mending.rows(path, job.out / ROWS)
            except Unusual:
                return None
            if len(found.bad) > work.allowed:
                return None
            _add_bad(found.bad, [], path, work.allowed)
            return found
    return None


def _anew(job: Job, work: _Reading, path: Path) -> Origins:
    """All rows from nothing."""
    remove_tree(work.folder)
    work.folder.mkdir(parents=True)
    runs, digests, bad, left_out = list[Run](), list[bytes](), list[tuple[int, str]](), dict[str, list[int]]()
    for read in in_order(work.read, enumerate(blocks(path)), job.resources.threads):
        _add_bad(read.found.bad, bad, path, work.allowed)
        runs.append(read.run)
        digests.append(read.digests)
        for reason, lines in read.found.left_out.items():
            left_out.setdefault(reason, []).extend(lines)
    part = _write(job, runs, path)
    remove_tree(work.folder)
    return Origins(part, as_digests(b"".join(digests)), bad, left_out)


def _write(job: Job, runs: list[Run], path: Path) -> Part:
    try:
        return merge(runs, job.out / ROWS, job.work / RUNS, job.resources.threads)
    except SameId as error:
        name, first, line = error.args
        raise BuildError(
            f"{path}:{line}: id {name!r} was already used in line {first}; ids must be unique"
        ) from None


@dataclass(frozen=True)
class _Reading:
    """Turns blocks of the source into sorted runs."""

    rows_of: Callable[[Any], Iterator[Row | Dropped]]
    split: dict[str, Any] | None
    allowed: int
    folder: Path
    below: int = 1 << 64
    """Rows whose hash is below this are test rows."""

    def hashes(self, block: Lines | Items) -> set[int]:
        """What `read` would choose the block's rows by."""
        every = replace(self, split=None, allowed=sys.maxsize)
        return {_drawn(_problem(row), self.split or {}) for row in every.parsed([block]).rows}

    def read(self, numbered: tuple[int, Lines | Items]) -> Read:
        """Turn a block into a run."""
        number, block = numbered
        found = self.parsed([block])
        run = write_run(self.folder / f"{number}", found.rows)
        digests = digests_of(block.lines) if isinstance(block, Lines) else b""
        return Read(run, replace(found, rows=[]), digests)

    def parsed(self, some: Iterable[Lines | Items]) -> Parsed:
        """The rows of some blocks, until there are more bad ones than are allowed."""
        found = Parsed()
        for block in some:
            for line, record in block.records():
                try:
                    self._add(line, record, found)
                except BadRow as error:
                    found.bad.append((line, str(error)))
                    if len(found.bad) > self.allowed:
                        return found
        return found

    def _add(self, line: int, record: Any, found: Parsed) -> None:
        if isinstance(record, ValueError):
            raise BadRow(str(record))
        read = list(self.rows_of(record))
        rows = [self._found(line, row) for row in read if isinstance(row, Row)]
        if len(rows) < len(read):
            for one in read:
                if isinstance(one, Dropped):
                    found.left_out.setdefault(one.reason, []).append(line)
        found.rows += [row for row in rows if row]

    def _found(self, line: int, row: Row) -> Found | None:
        try:
            body = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise BadRow(f"cannot be written as JSON ({error})") from None
        name = row.id
        if not name:
            name = hashlib.sha256(body).hexdigest()[:32]
            body = body.replace(b'"id":""', f'"id":"{name}"'.encode(), 1)
        if self.split and self._part(row.group or name) != self.split["part"]:
            return None
        return Found(name, line, bool(row.id), body)

    def _part(self, name: str) -> str:
        """Which split a row belongs to: a hash of its problem's id, so that growing data moves no row."""
        assert self.split
        share = self.split["test"]
        below = self.below if share is None else int(share * 2**64)
        return "test" if _drawn(name, self.split) < below else "train"


def _add_bad(some: list[tuple[int, str]], bad: list[tuple[int, str]], path: Path, allowed: int) -> None:
    for line, reason in some:
        bad.append((line, reason))
        if len(bad) > allowed:
            allow = f" (this is bad row {len(bad)}, bad_rows allows {allowed})" if allowed else ""
            raise BuildError(
                f"{path}:{line}: {reason}{allow}; correct the row, or allow some with `bad_rows`"
            )
        say(f"rows: {path}:{line}: {reason}; left out")


def _drawn(name: str, split: dict[str, Any]) -> int:
    """Hash of a problem's id, 64 bits; equal rows known by their digest have the same."""
    again = _AGAIN.fullmatch(name)
    text = f"{split['seed']}:{again[1] if again else name}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _problem(row: Found) -> str:
    return str(orjson.loads(row.body)["group"] or row.id)


def _bound(work: _Reading, path: Path, wanted: int, processes: int) -> int:
    """The hash below which there are so many problems; the source is read once more for it.

    Raises:
        BuildError: There are not more than that.
    """
    found: set[int] = set()
    for hashes in in_order(work.hashes, blocks(path), processes):
        found |= hashes
    if len(found) <= wanted:
        raise BuildError(
            f"{path}: dataset.split.test_rows takes {wanted} of {len(found)} rows or problems: none is left "
            "to train on; ask for fewer"
        )
    return sorted(found)[wanted]
