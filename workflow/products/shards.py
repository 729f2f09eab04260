"""shards: the rows of one split as token ids and label mask, within the recipe's limits.

A training row is prompt and answer; a test row is the prompt alone. Rows are cut into shards where their
own ids say, so that an edit moves no cut but its own; a shard that was tokenized before is linked, and of a
shard that was not, only the rows that no neighbouring version of it knows. The files hold what messages
tell and nothing else of a row: a label corrected in a column that no prompt shows changes none.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from workflow.encoding import Unequal
from workflow.errors import BuildError
from workflow.processes import in_order
from workflow.products import VERSIONS
from workflow.products.rows import ROWS
from workflow.progress import Progress, say
from workflow.prompts import PromptTemplate
from workflow.store.address import address_of
from workflow.store.build import Job
from workflow.store.files import digests_of, remove_tree
from workflow.store.pieces import Pieces
from workflow.tokenizing import Tokenizing
from workflow.tokens import (
    RENDERING,
    Shard,
    TokenRow,
    rendering_bytes,
    shard_bytes,
    shard_name,
)

SHARD_ROWS = 1000
"""Rows in a shard, on average."""
DONORS = 8
"""Shards that begin or end at one row and are searched for rows already tokenized."""
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
        remove_tree(_Shards(job, path, fast=False).pieces.folder)
        for shard in job.out.iterdir():
            shard.unlink()
        counts, tokenized, total = _all(job, path, fast=False)
    if not counts["rows"]:
        raise BuildError(f"every one of {total} rows is over the limits of section prompt; raise them")
    say(f"shards: {tokenized} of {total} rows tokenized")
    return counts


def spans(path: Path) -> Iterator[Span]:
    """Cut lines into shards of SHARD_ROWS on average; a row is the last of its shard if its id says so.

    To delete or add a row changes the shard that it is in, and joins it with the next or divides it if the
    row is a last one. To edit a row under its id moves no cut.
    """
    begin = end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            if zlib.crc32(_id(line)) * SHARD_ROWS < 1 << 32:
                yield begin, end - begin
                begin = end
    if end > begin:
        yield begin, end - begin


def _id(line: bytes) -> bytes:
    """A row's id, as canonical JSON has it: no text before it can hold these quotes without a backslash."""
    begin = line.index(b'"id":"') + 6
    return line[begin : line.index(b'","index":', begin)]


def _mark(line: bytes) -> str:
    """What a row is known by in the names of shards that it begins or ends."""
    return hashlib.blake2b(_id(line), digest_size=8).hexdigest()


def _all(job: Job, path: Path, fast: bool) -> tuple[dict[str, int], int, int]:
    counts = dict.fromkeys(_COUNTS, 0)
    tokenized = total = 0
    progress, done = Progress("shards", _megabytes(path.stat().st_size), "MB"), 0
    work = _Shards(job, path, fast)
    for made in in_order(work.make, chain(enumerate(spans(path)), [None]), job.resources.threads):
        counts = {n: (max if n == "longest" else int.__add__)(counts[n], made.counts[n]) for n in _COUNTS}
        tokenized, total, done = tokenized + made.tokenized, total + made.rows, done + made.bytes
        progress.reached(_megabytes(done))
    return dict(sorted(counts.items())), tokenized, total


def _megabytes(size: int) -> int:
    return -(-size >> 20)


class Done(NamedTuple):
    """What came of a shard."""

    bytes: int = 0
    counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
    rows: int = 0
    tokenized: int = 0


class _Shards:
    """Makes the shards of one job, each by itself."""

    def __init__(self, job: Job, path: Path, fast: bool):
        self.job, self.path, self.fast = job, path, fast
        self.template = PromptTemplate(job.sources["template"])
        context = address_of({
            "version": VERSIONS["shards"],
            "slice": job.slice,
            "template": self.template.meaning,
            "tokenizer": digests_of(job.inputs["tokenizer"]),
        })  # fmt: skip
        self.pieces = Pieces(job.pieces / "tokens" / context, _ENDING)
        self._marked: dict[str, list[str]] = defaultdict(list)  # digest of a first or last id -> labels
        for label in self.pieces.found:
            for mark in label.split("-")[:2]:
                self._marked[mark].append(label)
        self.tokenizing = Tokenizing(job.slice, self.template, job.inputs["tokenizer"], fast)

    def make(self, cut: tuple[int, Span] | None) -> Done:
        """Make the shard of a number and span; None stands for what is not of any shard."""
        if cut is None:
            self._rendering()
            return Done()
        return self._shard(*cut)

    def _rendering(self) -> None:
        """Write what prediction must know about the tokenizer, which need not be loaded for it again."""
        pieces, target = Pieces(self.pieces.folder, ".json"), self.job.out / RENDERING
        if not pieces.take("rendering", target):
            pieces.put("rendering", rendering_bytes(self.tokenizing.renderer.rendering), target)

    def _shard(self, number: int, span: Span) -> Done:
        """Link or make a shard."""
        with self.path.open("rb") as file:
            file.seek(span[0])
            body = file.read(span[1])
        lines = body.removesuffix(b"\n").split(b"\n")
        label = "-".join([
            *(_mark(lines[0]), _mark(lines[-1])), hashlib.blake2b(body, digest_size=16).hexdigest()
        ])  # fmt: skip
        target = self.job.out / shard_name(number)
        new = 0
        if not self.pieces.take(label, target):
            asked = self.tokenizing.asked(lines)
            digests = [one.digest for one in asked]
            known = self._known(lines, set(digests))
            missing = [one for one in asked if one.digest not in known]
            made = iter(self.tokenizing.rows(missing))
            rows = [known.get(digest) or next(made) for digest in digests]
            self.pieces.put(label, shard_bytes(rows, digests), target)
            new = len(missing)
        shard = Shard(target)
        return Done(span[1], shard.counts(), len(shard.ids), new)

    def _known(self, lines: list[bytes], wanted: set[bytes]) -> dict[bytes, TokenRow]:
        """Rows that shards have which began or ended at one of these lines."""
        known: dict[bytes, TokenRow] = {}
        for line in lines if self._marked else []:
            for donor in self._marked.get(_mark(line), [])[-DONORS:]:
                if len(known) < len(wanted) and (path := self.pieces.intact(donor)):
                    shard = Shard(path)
                    places = shard.known()
                    found = (wanted & places.keys()) - known.keys()
                    known |= {digest: shard.row(places[digest]) for digest in found}
        return known
