"""shards: the rows of one split as token ids and label mask, within the recipe's limits.

A training row is prompt and answer; a test row is the prompt alone. Rows are cut into shards at lines
that their own content chooses, so that an edit moves no cut but its own; a shard that was tokenized
before is linked, and of a shard that was not, only the rows that no neighbouring version of it knows.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from workflow.death import die_with_parent
from workflow.encoding import Unequal
from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.progress import Progress, say
from workflow.prompts import PromptTemplate
from workflow.store.address import address_of
from workflow.store.build import Job
from workflow.store.files import digests_of
from workflow.store.pieces import Pieces
from workflow.tokenizing import Tokenizing
from workflow.tokens import (
    RENDERING,
    Shard,
    TokenRow,
    digest_of_line,
    rendering_bytes,
    shard_bytes,
    shard_name,
)

VERSION = 2
SHARD_BYTES = 1 << 20
"""Bytes of rows in a shard, on average."""
DONORS = 8
"""Versions of a shard that are searched for rows already tokenized."""
_ENDING = ".safetensors"
_COUNTS = "rows tokens trained_tokens dropped truncated cut_tokens over_limit longest".split()

Span = tuple[int, int]
"""Where a shard's lines begin in `rows.jsonl`, and how many bytes they are."""


def make(job: Job) -> dict[str, Any]:
    """Write the shards.

    Returns:
        Counts: rows, tokens, trained tokens, the longest row, and what the limits did.

    Raises:
        BuildError: A row cannot be rendered, a row is over the limits and the recipe says `error`, the
            tokenizer loses text, or no row is left.
    """
    path = job.inputs["rows"] / ROWS
    try:
        counts, tokenized, total = _all(job, path, fast=True)
    except Unequal:
        say("shards: gigatoken's tokens are not those of HF tokenizers; tokenizing with the latter")
        for shard in job.out.iterdir():
            shard.unlink()
        counts, tokenized, total = _all(job, path, fast=False)
    if not counts["rows"]:
        raise BuildError(f"every one of {total} rows is over the limits of section prompt; raise them")
    say(f"shards: {tokenized} of {total} rows tokenized")
    return counts


def spans(path: Path) -> Iterator[Span]:
    """Cut lines into shards of SHARD_BYTES on average, each at a line that its own content chooses.

    A line is the last of its shard with a probability of its length in SHARD_BYTES. To delete or add a
    line changes the shard that it is in, and joins it with the next or divides it if the line is a last one.
    """
    begin = end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            if zlib.crc32(line) * SHARD_BYTES < len(line) << 32:
                yield begin, end - begin
                begin = end
    if end > begin:
        yield begin, end - begin


def _all(job: Job, path: Path, fast: bool) -> tuple[dict[str, int], int, int]:
    counts = dict.fromkeys(_COUNTS, 0)
    tokenized = total = 0
    progress = Progress("shards", path.stat().st_size >> 20, "MB")
    done = 0
    for span, (found, new, rows) in _shards(_Shards(job, path, fast), job.resources.threads):
        counts = {n: (max if n == "longest" else int.__add__)(counts[n], found[n]) for n in _COUNTS}
        tokenized, total, done = tokenized + new, total + rows, done + span[1]
        progress.reached(done >> 20)
    return dict(sorted(counts.items())), tokenized, total


Done = tuple[dict[str, int], int, int]
"""A shard's counts, the rows of it that were tokenized, and all its rows."""


def _shards(work: _Shards, processes: int) -> Iterator[tuple[Span, Done]]:
    """Make all shards, in order, by as many processes as there are."""
    cuts = enumerate(spans(work.path))
    if processes < 2:
        for number, span in cuts:
            yield span, work.shard(number, span)
        work.rendering()
        return
    with ProcessPoolExecutor(processes, get_context("fork"), _start, (work,)) as pool:
        waiting: deque[tuple[Span, Future[Done]]] = deque()
        try:
            for number, span in cuts:
                waiting.append((span, pool.submit(_shard, number, span)))
                while len(waiting) > 4 * processes or (waiting and waiting[0][1].done()):
                    first, future = waiting.popleft()
                    yield first, future.result()
            rendering = pool.submit(_rendering)
            for span, future in waiting:
                yield span, future.result()
            rendering.result()
        except BrokenProcessPool:
            raise BuildError("shards: a process was killed, most likely for memory; build again") from None
        finally:
            pool.shutdown(cancel_futures=True)


_work: _Shards | None = None


def _start(work: _Shards) -> None:
    """Begin as a process of the pool."""
    global _work
    die_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is one process per core already
    _work = work


def _shard(number: int, span: Span) -> Done:
    assert _work
    return _work.shard(number, span)


def _rendering() -> None:
    assert _work
    _work.rendering()


class _Shards:
    """Makes the shards of one job, each by itself."""

    def __init__(self, job: Job, path: Path, fast: bool):
        self.job, self.path, self.fast = job, path, fast
        self.template = PromptTemplate(job.sources["template"])
        context = address_of({
            "version": VERSION,
            "slice": job.slice,
            "template": self.template.meaning,
            "tokenizer": digests_of(job.inputs["tokenizer"]),
        })  # fmt: skip
        self.pieces = Pieces(job.pieces / "tokens" / context, _ENDING)
        self.tokenizing = Tokenizing(job.slice, self.template, job.inputs["tokenizer"], fast)

    def rendering(self) -> None:
        """Write what prediction must know about the tokenizer, which need not be loaded for it again."""
        pieces, target = Pieces(self.pieces.folder, ".json"), self.job.out / RENDERING
        if not pieces.take("rendering", target):
            pieces.put("rendering", rendering_bytes(self.tokenizing.renderer.rendering), target)

    def shard(self, number: int, span: Span) -> Done:
        """Link or make a shard."""
        with self.path.open("rb") as file:
            file.seek(span[0])
            body = file.read(span[1])
        lines = body.removesuffix(b"\n").split(b"\n")
        marks = [hashlib.blake2b(part, digest_size=8).hexdigest() for part in (lines[0], lines[-1])]
        label = "-".join([*marks, hashlib.blake2b(body, digest_size=16).hexdigest()])
        target = self.job.out / shard_name(number)
        new = 0
        if not self.pieces.take(label, target):
            digests = [digest_of_line(line) for line in lines]
            known = self._known(label, digests)
            missing = [line for line, digest in zip(lines, digests, strict=True) if digest not in known]
            made = iter(self.tokenizing.rows(missing))
            rows = [known.get(digest) or next(made) for digest in digests]
            self.pieces.put(label, shard_bytes(rows, digests), target)
            new = len(missing)
        shard = Shard(target)
        return shard.counts(), new, len(shard.ids)

    def _known(self, label: str, digests: list[bytes]) -> dict[bytes, TokenRow]:
        """Rows that versions of this shard with the same first or last line have."""
        first, last, _ = label.split("-")
        known: dict[bytes, TokenRow] = {}
        for donor in _donors(self.pieces, first, last):
            shard = Shard(donor)
            places = shard.known()
            for digest in digests:
                if digest not in known and digest in places:
                    known[digest] = shard.row(places[digest])
        return known


def _donors(pieces: Pieces, first: str, last: str) -> Iterator[Path]:
    for side, mark in enumerate((first, last)):
        for label in [label for label in pieces.found if label.split("-")[side] == mark][-DONORS:]:
            if path := pieces.intact(label):
                yield path
