"""Rows sorted by id and cut into shards, on disk and by several processes; memory is that of some blocks.

Blocks of the source become sorted *runs*; then all runs are divided at the same ids into *parts*, each of
which is merged by itself. Parts end where shards end, so nothing depends on how many there are.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from workflow.errors import BuildError
from workflow.processes import in_order

SHARD_ROWS = 1000
"""Rows in a shard, on average."""


class Found(NamedTuple):
    """A row in a run; runs are sorted by this."""

    id: str
    line: int
    own: bool  # else the id is the digest of the content
    body: bytes


class Cut(NamedTuple):
    """One shard's rows: how many bytes of the rows' file, and a label that stands for them.

    The label is `<mark of the first id>-<mark of the last id>-<digest of the bytes>`.
    """

    bytes: int
    label: str


class SameId(Exception):
    """Two rows have one id: the id, and the lines of both."""


@dataclass
class Run:
    """A sorted part of the source, and where shards end in it."""

    path: Path
    ends: list[str] = field(default_factory=list)

    @property
    def index(self) -> Path:
        """File with the id of each row and the place behind it."""
        return self.path.with_suffix(".index")


@dataclass
class Part:
    """The rows between two ids, sorted, and of each shard of them what is known."""

    cuts: list[Cut] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """Id of the last row, before equal ones were numbered."""
    lines: list[list[int]] = field(default_factory=list)
    """The line of the source that each row was found in."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(map(len, self.lines))

    def add(self, other: Part) -> None:
        """Append what comes behind."""
        self.cuts += other.cuts
        self.ends += other.ends
        self.lines += other.lines


def ends_shard(id: str) -> bool:
    """Whether a row is the last of its shard: its own id says so, whatever its neighbours are.

    To delete or add a row changes the shard that it is in, and joins it with the next or divides it if the
    row is a last one. To edit a row under its id moves no cut.
    """
    return zlib.crc32(id.encode()) * SHARD_ROWS < 1 << 32


def mark(id: str) -> str:
    """What a row is known by in the labels of shards that it begins or ends."""
    return hashlib.blake2b(id.encode(), digest_size=8).hexdigest()


def write_run(path: Path, rows: Iterable[Found]) -> Run:
    """Sort rows that fit into memory and write them."""
    ordered = sorted(rows)
    run, places, place = Run(path), [], 0
    with path.open("wb", buffering=1 << 20) as file:
        for row in ordered:
            place += file.write(b"%d %d %b\n" % (row.own, row.line, row.body))
            places.append(place)
    run.index.write_bytes(orjson.dumps([[row.id for row in ordered], places]))
    run.ends = [row.id for row in ordered if ends_shard(row.id)]
    return run


def merge(runs: list[Run], target: Path, folder: Path, processes: int) -> Part:
    """Write all rows of all runs to `target`, sorted by id; `folder` is for parts of it.

    Raises:
        SameId: Two rows have one id of their own.
    """
    merging, whole = _Merging(runs, folder), Part()
    with target.open("wb") as file:
        for path, part in in_order(merging.part, enumerate(_divided(runs)), processes):
            with path.open("rb") as merged:
                copy(merged, 0, path.stat().st_size, file)
            path.unlink()
            whole.add(part)
    return whole


def copy(source: BinaryIO, begin: int, size: int, target: BinaryIO) -> None:
    """Append some bytes of a file to another, within the kernel.

    Raises:
        EOFError: There are not so many.
    """
    target.flush()
    while size:
        sent = os.sendfile(target.fileno(), source.fileno(), begin, size)
        if not sent:
            raise EOFError(source.name)
        begin, size = begin + sent, size - sent


Slices = list[tuple[int, int]]
"""Of each run the place where a part begins in it, and where the part ends."""


def _divided(runs: list[Run]) -> list[Slices]:
    """About as many parts as there are runs, so that one of either fits into memory."""
    ends = sorted({end for run in runs for end in run.ends})
    seams = ends[:: max(1, len(ends) // len(runs))] if runs else []
    table = []
    for run in runs:
        ids, places = orjson.loads(run.index.read_bytes())
        within = [bisect_right(ids, seam) for seam in seams]
        table.append([0, *(places[i - 1] if i else 0 for i in within), places[-1] if places else 0])
    return [[(places[k], places[k + 1]) for places in table] for k in range(len(seams) + 1)]


@dataclass(frozen=True)
class _Merging:
    """Merges the runs, part by part."""

    runs: list[Run]
    folder: Path

    def part(self, numbered: tuple[int, Slices]) -> tuple[Path, Part]:
        number, slices = numbered
        rows = sorted(row for run, span in zip(self.runs, slices, strict=True) for row in _read(run, *span))
        path = self.folder / f"part-{number}"
        with path.open("wb") as file:
            return path, write_sorted(file, rows)


def write_sorted(file: BinaryIO, rows: Iterable[Found]) -> Part:
    """Write rows that come sorted by id, one shard in memory at a time.

    Raises:
        SameId: Two rows have one id of their own.
    """
    part = Part()
    for end, shard in _shards(rows):
        body = b"".join(row.body + b"\n" for row in shard)
        label = f"{mark(shard[0].id)}-{mark(shard[-1].id)}-{digest_of(body)}"
        part.cuts.append(Cut(file.write(body), label))
        part.ends.append(end)
        part.lines.append([row.line for row in shard])
    return part


def digest_of(body: bytes) -> str:
    """What a shard's label ends with: half of the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(body).hexdigest()[:32]


def _read(run: Run, begin: int, end: int) -> Iterator[Found]:
    if begin == end:
        return
    with run.path.open("rb") as file:
        file.seek(begin)
        lines = file.read(end - begin).split(b"\n")
    for line in lines[:-1]:
        own, number, body = line.split(b" ", 2)
        yield Found(id_of(body), int(number), own == b"1", body)


def id_of(body: bytes) -> str:
    """A row's id, as canonical JSON has it: no text before it can hold these quotes without a backslash."""
    begin = body.index(b'"id":"') + 6
    raw = body[begin : body.index(b'","index":', begin)]
    return str(orjson.loads(b'"%b"' % raw)) if b"\\" in raw else raw.decode()


def _shards(rows: Iterable[Found]) -> Iterator[tuple[str, list[Found]]]:
    """Cut sorted rows; equal ones get different ids and stay together."""
    shard: list[Found] = []
    end = ""
    for end, equal in groupby(rows, key=attrgetter("id")):
        shard += _distinct(list(equal))
        if ends_shard(end):
            yield end, shard
            shard = []
    if shard:
        yield end, shard


def _distinct(equal: list[Found]) -> list[Found]:
    """Name a row, and its problem, by the digest of the content; equal ones are numbered from 2."""
    if len(equal) == 1:
        return equal
    for one, other in zip(equal, equal[1:], strict=False):
        if one.own or other.own:
            raise SameId(one.id, one.line, other.line)
    again = sorted(["", *(f".{number}" for number in range(2, len(equal) + 1))])
    return [renamed(row, behind=ending) if ending else row for row, ending in zip(equal, again, strict=True)]


def renamed(row: Found, before: str = "", behind: str = "", problem: bool = True) -> Found:
    """A row with more text around its id and, if its `problem` is another one too, around the group."""
    content = orjson.loads(row.body)
    content["id"] = f"{before}{content['id']}{behind}"
    if problem and content["group"] is not None:
        content["group"] = f"{before}{content['group']}{behind}"
    return row._replace(id=content["id"], body=orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def read_cuts(path: Path) -> list[Cut]:
    """The cuts that `write_cuts` wrote.

    Raises:
        BuildError: The file is damaged.
    """
    try:
        return [Cut(size, label) for size, label in orjson.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise BuildError(f"{path}: damaged ({error}); build again") from None


def write_cuts(path: Path, cuts: list[Cut]) -> None:
    """Write where a rows' file is cut."""
    path.write_bytes(orjson.dumps([tuple(cut) for cut in cuts]) + b"\n")
