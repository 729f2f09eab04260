"""overlap: which test rows the training rows already show, word for word or but for how they are set.

Two rows match *exactly* when what is asked is the same (the prompt's fields, and the turns before the
answer), and *normalised* when the texts in it are equal after NFKC, case folding and removal of white
space and punctuation.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow.products.rows import ROWS
from workflow.results import AskedRow, read_records
from workflow.store.address import canonical
from workflow.store.build import Job

OVERLAP = "overlap.json"
Pairs = list[tuple[str, str]]
Digests = tuple[bytes, bytes]


def make(job: Job) -> dict[str, Any]:
    """Write `overlap.json`: for each kind the counts and all pairs of ids, `[train id, test id]`, sorted.

    Only digests and ids of the test rows are held in memory, and the pairs found; no texts.

    Returns:
        Counts: rows of both splits; per kind the pairs and the test rows in them. A row that matches
        exactly also matches normalised.

    Raises:
        BuildError: A rows file is missing or damaged.
    """
    train, test = job.inputs["train"] / ROWS, job.inputs["test"] / ROWS
    index, test_rows = _index(test)
    exact, normalised, train_rows = _match(train, index)
    kinds = {"exact": sorted(exact), "normalised": sorted(normalised)}
    counts = {"train_rows": train_rows, "test_rows": test_rows}
    for kind, pairs in kinds.items():
        counts |= {f"{kind}_pairs": len(pairs), f"{kind}_test_rows": len({test for _, test in pairs})}
    text = json.dumps({**counts, **kinds}, indent=1, sort_keys=True, ensure_ascii=False)
    (job.out / OVERLAP).write_text(text + "\n", encoding="utf-8")
    return counts


def _index(path: Path) -> tuple[dict[bytes, list[tuple[str, bytes]]], int]:
    """Normalised digest -> (id, exact digest) of the test rows that have it, and the number of rows."""
    index, rows = defaultdict(list), 0
    for row in read_records(path, AskedRow):
        rows += 1
        if row.asked:  # plain text asks nothing
            exact, normalised = digests(row.asked)
            index[normalised].append((row.id, exact))
    return dict(index), rows


def _match(path: Path, index: dict[bytes, list[tuple[str, bytes]]]) -> tuple[Pairs, Pairs, int]:
    """Exact pairs, normalised pairs and the number of training rows. Exact ones are among the normalised."""
    exact: Pairs = []
    normalised: Pairs = []
    rows = 0
    for row in read_records(path, AskedRow):
        own, key = digests(row.asked)
        for test, other in index.get(key, ()):
            normalised.append((row.id, test))
            if own == other:
                exact.append((row.id, test))
        rows += 1
    return exact, normalised, rows


def digests(prompt: dict[str, Any]) -> Digests:
    """The exact and the normalised digest of what is asked (blake2b-128).

    The normalised one knows no field names, so that `{"instruction": X, "input": ""}` matches
    `{"question": X}`; but texts stay apart, so that the options "1", "23" are not the options "12", "3".
    A prompt of which nothing is left matches only prompts that are exactly equal.
    """
    plain = canonical(prompt)
    texts = [text for text in map(normalised, _texts(prompt)) if text]
    return _digest(plain), _digest(canonical(texts) if texts else b"\0" + plain)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, fields in the order of their names; numbers as they are written."""
    if isinstance(value, dict):
        for _, inner in sorted(value.items()):
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)


class _Removal(dict[int, int | None]):
    """Table for `str.translate`: removes white space and punctuation, learning each character once."""

    def __missing__(self, point: int) -> int | None:
        character = chr(point)
        gone = character.isspace() or unicodedata.category(character)[0] in "PZ"
        self[point] = None if gone else point
        return self[point]


_REMOVAL = _Removal()


def normalised(text: str) -> str:
    """NFKC, case folded, without white space and punctuation (Unicode categories Z and P).

    NFKC is applied again at the end: what folding and removal bring together may combine.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded.translate(_REMOVAL))
