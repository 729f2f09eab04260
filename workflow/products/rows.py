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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from workflow.errors import BuildError
from workflow.formats import BadRow, Dropped, Row, reader
from workflow.formats.reading import Items, Lines, blocks
from workflow.hub_data import exported
from workflow.processes import in_order
from workflow.progress import say
from workflow.recipe.dataset import Source
from workflow.sorting import Found, Run, SameId, merge, write_cuts, write_run
from workflow.store.address import ADDRESS
from workflow.store.build import Job
from workflow.store.files import remove_tree

ROWS, CUTS, RUNS = "rows.jsonl", "cuts.json", "runs"
LISTED = 20
"""Bad rows that are named one by one."""
_AGAIN = re.compile(rf"({ADDRESS})\.\d+")


@dataclass
class Read:
    """What came of one block of the source; what was wrong in it is listed by line."""

    run: Run
    bad: list[tuple[int, str]]
    left_out: Counter[str]


def make(job: Job) -> dict[str, Any]:
    """Write `rows.jsonl` and `cuts.json`.

    Returns:
        Counts: rows, rows left out as bad and the first of their reasons (by line, without the path), rows
        left out because the recipe says so, by reason (of both splits, where one file is split).

    Raises:
        BuildError: More bad rows than the recipe allows, two rows with one id, or no row at all.
    """
    path = job.sources.get("data") or exported(job.slice["path"], job.sources, job.work)
    split = job.slice.get("split")
    source: Any = TypeAdapter(Source).validate_python(
        {**{k: v for k, v in job.slice.items() if k != "split"}, "path": str(path)}
    )
    folder = job.work / RUNS
    remove_tree(folder)
    folder.mkdir(parents=True)
    bad: list[str] = []
    runs: list[Run] = []
    left_out: Counter[str] = Counter()
    work = _Reading(reader(source), split, source.bad_rows, folder)
    if split and split.get("test_rows"):
        work = replace(work, below=_bound(work, path, split["test_rows"], job.resources.threads))
    for read in in_order(work.read, enumerate(blocks(path)), job.resources.threads):
        _add_bad(read, bad, path, source.bad_rows)
        runs.append(read.run)
        left_out += read.left_out
    rows = _write(job, runs, path)
    remove_tree(folder)
    if not rows:
        raise BuildError(f"{path}: no rows{' in this split' if split else ''}; nothing to build from")
    for reason, number in left_out.most_common():
        say(f"rows: {number} left out: {reason}")
    return {
        "rows": rows,
        "bad_rows": len(bad),
        "bad": bad[:LISTED],
        "left_out": dict(sorted(left_out.items())),
    }


def _write(job: Job, runs: list[Run], path: Path) -> int:
    try:
        rows, cuts = merge(runs, job.out / ROWS, job.work / RUNS, job.resources.threads)
    except SameId as error:
        name, first, line = error.args
        raise BuildError(
            f"{path}:{line}: id {name!r} was already used in line {first}; ids must be unique"
        ) from None
    write_cuts(job.out / CUTS, cuts)
    return rows


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
        found = every._rows(block, [], Counter())
        return {_drawn(_problem(row), self.split or {}) for row in found}

    def read(self, numbered: tuple[int, Lines | Items]) -> Read:
        number, block = numbered
        bad: list[tuple[int, str]] = []
        left_out: Counter[str] = Counter()
        run = write_run(self.folder / f"{number}", self._rows(block, bad, left_out))
        return Read(run, bad, left_out)

    def _rows(
        self, block: Lines | Items, bad: list[tuple[int, str]], left_out: Counter[str]
    ) -> Iterator[Found]:
        for line, record in block.records():
            try:
                if isinstance(record, ValueError):
                    raise BadRow(str(record))
                found = list(self.rows_of(record))
                rows = [self._found(line, row) for row in found if isinstance(row, Row)]
            except BadRow as error:
                bad.append((line, str(error)))
                if len(bad) > self.allowed:
                    return
                continue
            if len(rows) < len(found):
                left_out.update(one.reason for one in found if isinstance(one, Dropped))
            yield from (row for row in rows if row)

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


def _add_bad(read: Read, bad: list[str], path: Path, allowed: int) -> None:
    for line, reason in read.bad:
        bad.append(f"line {line}: {reason}")
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
