"""Draws on disk: every answer that a model gave, found again by whoever asks it the same.

`store/pieces/predictions/<context>/<writer>.jsonl`: a *context* is all that decides a draw besides its row,
its prompt and its number, a *writer* the key of the job that drew it. So two jobs never write to one file.
A line is one draw, with a checksum of the rest of it in front; no line is ever changed. One that is torn or
damaged is passed over, and what it held is drawn again. A context may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from workflow.engine import Draw, Question, seed_of
from workflow.errors import BuildError
from workflow.progress import say
from workflow.store.address import canonical
from workflow.store.files import sync_folder

SYNC_SECONDS = 1.0  # most work that a power cut may cost; a kill costs none
MOST_OPEN = 100  # files of other writers kept open: a process may have 1024
PLACE = np.dtype([("file", np.int32), ("length", np.int32), ("offset", np.int64)])  # length 0: not there
BEFORE = b'{"sum":"%s",'  # what a line begins with; the digest is of all that follows
CHECKED = len(BEFORE % bytes(16))

Record = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The draws that a job is to have."""

    prompts: dict[str, str]  # row id -> digest of the prompt's token ids
    draws: int  # of each row
    seed: int  # from which each draw's own is derived


def prompt_digest(tokens: Sequence[Any]) -> str:
    """blake2b-64 of a prompt, most often its token ids, in hex."""
    return _sum(json.dumps(tokens).encode())


def _sum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


class Draws:
    """The wanted draws of a context: those that were found, and those that are added.

    In memory there are places, 16 bytes for each draw; texts stay in the files.
    """

    def __init__(self, folder: Path, writer: str, wanted: Wanted):
        """Look through the context `folder`; new draws will go to the file of `writer`."""
        self.wanted = wanted
        self._rows = {row: number for number, row in enumerate(wanted.prompts)}
        self._places = np.zeros((len(self._rows), wanted.draws), PLACE)
        self.path = folder / f"{writer}.jsonl"
        self._own = _open_own(self.path)
        self._open = {self._own}
        self._synced, self._dirty = time.monotonic(), False
        self.count = 0  # draws that are there
        self._end = self._scan(self.path, self._own, self._place)
        if self._end and os.pread(self._own, 1, self._end - 1) != b"\n":
            self._write(b"\n")  # so that no new line is joined to a torn one
        self._look_at_others(folder)

    def __enter__(self) -> Draws:
        """The files are open from the beginning."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush what was written, however the work ended."""
        os.fsync(self._own)
        for file in self._open:
            os.close(file)

    def _look_at_others(self, folder: Path) -> None:
        """Take from the largest files first; of very many the smallest are copied, not kept open."""
        others = [path for path in folder.glob("*.jsonl") if path != self.path]
        for path in sorted(others, key=lambda path: (-_size(path), path.name)):
            with suppress(FileNotFoundError):  # swept in the meantime
                file = os.open(path, os.O_RDONLY)
                self._scan(path, file, self._place if len(self._open) < MOST_OPEN else self._copy)
                if file not in self._open:
                    os.close(file)

    def _scan(self, path: Path, file: int, take: Callable[[Record, int, int, bytes], None]) -> int:
        """Take every whole line that is wanted; the size of the file."""
        offset = damaged = 0
        with open(file, "rb", closefd=False) as lines:
            for line in lines:
                record = _record(line)
                if record is None:
                    damaged += 1
                elif self._lacks(record):
                    take(record, file, offset, line)
                offset += len(line)
        if damaged:
            say(f"predictions: {path}: lines torn or damaged, and left out: {damaged}")
        return offset

    def _lacks(self, record: Record) -> bool:
        """Whether a record is a wanted draw, of this very prompt and seed, that is not there yet."""
        row, draw = record["id"], record["draw"]
        return (
            self.wanted.prompts.get(row) == record["prompt"]
            and draw < self.wanted.draws
            and record["seed"] == seed_of(self.wanted.seed, row, draw)
            and not self._places[self._rows[row], draw]["length"]
        )

    def _place(self, record: Record, file: int, offset: int, line: bytes) -> None:
        self._places[self._rows[record["id"]], record["draw"]] = (file, len(line), offset)
        self._open.add(file)
        self.count += 1

    def _copy(self, record: Record, _file: int, _offset: int, line: bytes) -> None:
        self._place(record, self._own, self._end, line)
        self._write(line)

    def missing(self, row: str) -> list[int]:
        """Numbers of the draws that a row lacks."""
        lacking: list[int] = np.flatnonzero(self._places[self._rows[row]]["length"] == 0).tolist()
        return lacking

    def add(self, question: Question, draw: Draw) -> None:
        """Write one draw, so that a kill leaves it whole or not there.

        Raises:
            BuildError: The disk is full.
        """
        prompt = self.wanted.prompts[question.row]
        asked = {"id": question.row, "draw": question.draw, "prompt": prompt, "seed": question.seed}
        body = canonical(asked | draw.record)[1:] + b"\n"
        self._copy(asked, self._own, self._end, BEFORE % _sum(body).encode() + body)

    def _write(self, data: bytes) -> None:
        """Append in a single write."""
        if os.write(self._own, data) != len(data):  # what is torn is left out by the next attempt
            raise BuildError(f"{self.path}: the disk is full; make room and build again, nothing is lost")
        self._end += len(data)
        self._dirty = True

    def sync_if_due(self) -> None:
        """Flush to disk what is older than `SYNC_SECONDS`; call it often."""
        if self._dirty and time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._own)
            self._synced, self._dirty = time.monotonic(), False

    def read(self, row: str) -> list[Draw]:
        """All draws of a row, none of which is missing, in order.

        Raises:
            BuildError: A line was changed since it was looked through.
        """
        return [self._read(*place) for place in self._places[self._rows[row]].tolist()]

    def _read(self, file: int, length: int, offset: int) -> Draw:
        record = _record(os.pread(file, length, offset))
        if record is None:
            raise BuildError(f"{self.path.parent}: a record was changed while it was used; build again")
        return Draw(
            record["text"],
            record["token_ids"],
            record["finish_reason"],
            record.get("logprob"),
            record.get("tokens"),
        )


def _open_own(path: Path) -> int:
    """Open a writer's file in its context, which the sweep may take away at any moment."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.utime(path.parent)  # the sweep goes by it
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            sync_folder(path.parent)
            return file


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _record(line: bytes) -> Record | None:
    """A line's record, or None if it is not as it was written."""
    body = line[CHECKED:]
    if line[:CHECKED] != BEFORE % _sum(body).encode():
        return None
    record: Record = json.loads(b"{" + body)
    return record
