"""mixture: rows of one or several sources together, less duplicates; a sample; or each several times.

Every choice is made by a hash of a row's id: data that grow keep what was chosen before. Rows are read
several times and never held: of each, some 24 bytes are.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from workflow.errors import BuildError
from workflow.products.rows import CUTS, LISTED, ROWS
from workflow.progress import say
from workflow.sorting import Found, id_of, renamed, write_cuts, write_sorted
from workflow.store.build import Job
from workflow.store.store import read_manifest

CONTENT = ("prompt", "target", "turns")
"""Fields by which rows say the same."""


def make(job: Job) -> dict[str, Any]:
    """Write `rows.jsonl` and `cuts.json`, as `rows` does.

    Returns:
        Counts: those of the sources added up, rows of each source, duplicates and rows not sampled.

    Raises:
        BuildError: No row is left.
    """
    sources = dict(sorted(job.inputs.items()))
    sample = job.slice["sample"]
    kept, repeat = _Kept(sources, sample), sample["repeat"]
    copies = [kept.copies(number) for number in range(2, repeat + 1)]
    with (job.out / ROWS).open("wb") as file:
        part = write_sorted(file, heapq.merge(kept.rows(), *copies))
    write_cuts(job.out / CUTS, part.cuts)
    if not part.rows:
        raise BuildError("dataset: no row is left of the sources; ask for a larger sample")
    say(f"mixture: {part.rows} rows; {kept.duplicates} duplicates and {kept.unsampled} others left out")
    counts = {"rows": part.rows, "duplicates": kept.duplicates, "not_sampled": kept.unsampled}
    return {**_added(sources), **counts, "repeat": repeat}


class _Kept:
    """Which rows of all are kept."""

    def __init__(self, sources: dict[str, Path], sample: dict[str, Any]):
        self.sources = sources
        keep = np.ones(sum(read_manifest(folder).counts["rows"] for folder in sources.values()), bool)
        if sample["deduplicate"]:
            keep &= _first(_digests(sources, len(keep)))
        self.duplicates = int((~keep).sum())
        if sample["n"] or sample["share"]:
            keep &= _sampled(_hashes(sources, sample["seed"], len(keep)), keep, sample)
        self.unsampled = int((~keep).sum()) - self.duplicates
        self.keep = keep

    def copies(self, number: int) -> Iterator[Found]:
        """The rows once more, called `{number}~{id}`: what comes before all ids leaves them in order."""
        return (renamed(row, before=f"{number}~", problem=False) for row in self.rows())

    def rows(self) -> Iterator[Found]:
        return (row for row, keep in zip(_merged(self.sources), self.keep.tolist(), strict=True) if keep)


def _merged(sources: dict[str, Path]) -> Iterator[Found]:
    return heapq.merge(*[_read(name, folder / ROWS) for name, folder in sources.items()])


def _read(name: str, path: Path) -> Iterator[Found]:
    prefix = name and f"{name}/"
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            body = line.removesuffix(b"\n")
            row = Found(id_of(body), number, True, body)
            yield renamed(row, before=prefix) if prefix else row


def _digests(sources: dict[str, Path], count: int) -> NDArray[np.void]:
    """What each row says, as 16 bytes."""
    found = (hashlib.sha256(_content(row.body)).digest()[:16] for row in _merged(sources))
    return np.frombuffer(b"".join(found), np.dtype((np.void, 16)), count)


def _content(body: bytes) -> bytes:
    row = orjson.loads(body)
    return orjson.dumps([row[name] for name in CONTENT], option=orjson.OPT_SORT_KEYS)


def _first(digests: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether a row is the first, by id, of those that say the same."""
    keep = np.zeros(len(digests), bool)
    keep[np.unique(digests, return_index=True)[1]] = True
    return keep


def _hashes(sources: dict[str, Path], seed: int, count: int) -> NDArray[np.uint64]:
    found = (hashlib.blake2b(f"{seed}:{row.id}".encode(), digest_size=8).digest() for row in _merged(sources))
    return np.frombuffer(b"".join(found), "<u8", count)


def _sampled(
    hashes: NDArray[np.uint64], among: NDArray[np.bool_], sample: dict[str, Any]
) -> NDArray[np.bool_]:
    """Whether a row is in the sample: its hash is below a share of all, or among the n least."""
    if sample["share"]:
        below: NDArray[np.bool_] = hashes < np.uint64(int(sample["share"] * 2**64))
        return below
    wanted = sample["n"]
    keep = np.ones(len(hashes), bool)
    if wanted and wanted < among.sum():
        places = np.flatnonzero(among)
        keep[:] = False
        keep[places[np.argsort(hashes[places], kind="stable")[:wanted]]] = True
    return keep


def _added(sources: dict[str, Path]) -> dict[str, Any]:
    """The counts of all sources together."""
    bad: list[str] = []
    bad_rows, left_out, of = 0, Counter[str](), dict[str, int]()
    for name, folder in sources.items():
        counts = read_manifest(folder).counts
        of |= {name: counts["rows"]} if name else {}
        bad += [f"{name}: {reason}" if name else reason for reason in counts["bad"]]
        bad_rows += counts["bad_rows"]
        left_out += Counter(counts["left_out"])
    return {"bad_rows": bad_rows, "bad": bad[:LISTED], "left_out": dict(sorted(left_out.items())), "of": of}
