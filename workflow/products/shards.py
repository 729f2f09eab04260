"""shards: the rows of one split as token ids and label mask, within the recipe's limits.

A training row is prompt and answer; a test row is the prompt alone. `rows` says where rows are cut into
shards, so that an edit moves no cut but its own. A shard that was tokenized before is linked, its rows
unread; of another, only the rows are tokenized that no neighbouring version of it knows. The files hold
what messages tell and nothing else: a label corrected in a column that no prompt shows changes none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.chat import Chat
from workflow.encoding import Unequal
from workflow.examples import examples_of
from workflow.gate import refuse_rows
from workflow.processes import in_order
from workflow.products import VERSIONS
from workflow.products.rows import CUTS, ROWS
from workflow.progress import Progress, say
from workflow.prompts import template_of
from workflow.sorting import Cut, mark, read_cuts
from workflow.store.address import address_of
from workflow.store.build import Job
from workflow.store.files import digests_of, remove_tree
from workflow.store.pieces import Pieces
from workflow.tokenizing import Tokenizing
from workflow.tokens import (
    Shard,
    TokenRow,
    shard_bytes,
    shard_counts,
    shard_name,
    write_rendering,
)

DONORS = 8
"""Shards that begin or end at one row and are searched for rows already tokenized."""
EDITED = 3
"""Shards that the edit of one row may change."""
_ENDING = ".safetensors"
_COUNTS = "rows tokens trained_tokens dropped truncated cut_tokens lost_answers over_limit longest".split()


class Asked(NamedTuple):
    """A shard to make: its number, and where its lines are in `rows.jsonl`."""

    number: int
    begin: int
    cut: Cut


def make(job: Job) -> dict[str, Any]:
    """Write the shards.

    Returns:
        Counts: rows, tokens, trained tokens, the longest row, rows that say what another says, and what the
        limits did.

    Raises:
        BuildError: A row cannot be rendered, a row is over the limits and the recipe says `error`, the
            tokenizer loses text, what is trained does not end where generation stops, no row is left, or
            the recipe's section `gate` refuses what was counted.
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
    refuse_rows(counts, total, job.slice["gate"])
    say(f"shards: {tokenized} of {total} rows tokenized")
    return counts


def _all(job: Job, path: Path, fast: bool) -> tuple[dict[str, int], int, int]:
    counts, said = dict.fromkeys(_COUNTS, 0), [np.zeros(0, np.uint64)]
    tokenized = total = 0
    progress, done = Progress("shards", _megabytes(path.stat().st_size), "MB"), 0
    work = _Shards(job, path, fast)
    shards = list(_asked(read_cuts(job.inputs["rows"] / CUTS)))
    work.prepare(shards)
    for made in in_order(work.make, shards, job.resources.threads):
        counts = {n: (max if n == "longest" else int.__add__)(counts[n], made.counts[n]) for n in _COUNTS}
        tokenized, total, done = tokenized + made.tokenized, total + made.rows, done + made.bytes
        said.append(made.said)
        progress.reached(_megabytes(done))
    ordered = np.sort(np.concatenate(said))  # ten times as fast as np.unique
    counts["duplicates"] = int((ordered[1:] == ordered[:-1]).sum())
    return dict(sorted(counts.items())), tokenized, total


def _asked(cuts: list[Cut]) -> Iterator[Asked]:
    begin = 0
    for number, cut in enumerate(cuts):
        yield Asked(number, begin, cut)
        begin += cut.bytes


def _megabytes(size: int) -> int:
    return -(-size >> 20)


class Done(NamedTuple):
    """What came of a shard."""

    bytes: int
    counts: dict[str, int]
    said: NDArray[np.uint64]
    rows: int
    tokenized: int


class _Shards:
    """Makes the shards of one job, each by itself."""

    def __init__(self, job: Job, path: Path, fast: bool):
        self.job, self.path, self.fast = job, path, fast
        self.template = template_of(job.sources)
        self.examples = examples_of(job.slice, job.inputs)
        context = address_of({
            "version": VERSIONS["shards"],
            **({"examples": digests_of(job.inputs["examples"])} if self.examples else {}),
            "slice": {name: value for name, value in job.slice.items() if name != "gate"},
            "template": self.template.meaning,
            "tokenizer": digests_of(job.inputs["tokenizer"]),
        })  # fmt: skip
        self.pieces = Pieces(job.pieces / "tokens" / context, _ENDING)
        self._marked: dict[str, list[str]] = defaultdict(list)  # digest of a first or last id -> labels
        for label in self.pieces.found:
            for end in label.split("-")[:2]:
                self._marked[end].append(label)
        self.tokenizing = Tokenizing(job.slice, self.template, job.inputs["tokenizer"], fast, self.examples)

    def prepare(self, shards: list[Asked]) -> None:
        """Load what most shards will need, before processes are forked; write what is of no shard."""
        if sum(shard.cut.label not in self.pieces.found for shard in shards) > EDITED:
            self.tokenizing.renderer.encoder.prepare()
            if self.examples:
                self.examples.prepare()
        write_rendering(
            self.job.out, Chat.read(self.job.inputs["tokenizer"]).rendering(self.job.slice["stop"])
        )

    def make(self, shard: Asked) -> Done:
        """Link or make a shard."""
        target, label = self.job.out / shard_name(shard.number), shard.cut.label
        new = 0 if self.pieces.take(label, target) else self._tokenize(shard, target)
        counts, said = shard_counts(target)
        return Done(shard.cut.bytes, counts, said, sum(counts[name] for name in ("rows", "dropped")), new)

    def _tokenize(self, shard: Asked, target: Path) -> int:
        with self.path.open("rb") as file:
            file.seek(shard.begin)
            lines = file.read(shard.cut.bytes).removesuffix(b"\n").split(b"\n")
        asked = self.tokenizing.asked(lines)
        digests = [one.digest for one in asked]
        known = self._known([one.id for one in asked], set(digests))
        missing = [one for one in asked if one.digest not in known]
        made = iter(self.tokenizing.rows(missing))
        rows = [known.get(digest) or next(made) for digest in digests]
        self.pieces.put(shard.cut.label, shard_bytes(rows, digests), target)
        return len(missing)

    def _known(self, ids: list[str], wanted: set[bytes]) -> dict[bytes, TokenRow]:
        """Rows that shards have which began or ended at one of these rows."""
        known: dict[bytes, TokenRow] = {}
        for id in ids if self._marked else []:
            for donor in self._marked.get(mark(id), [])[-DONORS:]:
                if len(known) < len(wanted) and (path := self.pieces.intact(donor)):
                    shard = Shard(path)
                    places = shard.known()
                    found = (wanted & places.keys()) - known.keys()
                    known |= {digest: shard.row(places[digest]) for digest in found}
        return known
