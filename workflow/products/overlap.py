"""overlap: which test rows the training rows already show: word for word, but for their setting, or mostly.

Two rows match *exactly* when what is asked is the same (the prompt's fields, and the turns before the
answer), and *normalised* when the texts in it are equal after NFKC, case folding and removal of white
space and punctuation. A test row is *similar* when the training rows, answers included, hold most of its
8-grams (`workflow.leaks`). A test row that is any of these is contaminated.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from workflow.gate import refuse_overlap
from workflow.leaks import Leaks, Told
from workflow.products.rows import ROWS
from workflow.results import AskedRow, read_records
from workflow.store.address import canonical
from workflow.store.build import Job

OVERLAP = "overlap.json"
Pairs = list[tuple[str, str]]
Digests = tuple[bytes, bytes]


def make(job: Job) -> dict[str, Any]:
    """Write `overlap.json`: for each kind the counts and all pairs of ids, `[train id, test id]`, sorted.

    Similar rows also have the share of their 8-grams that is shown, and the words of the longest stretch.
    Only digests and ids of the test rows are held in memory, and the pairs found; no texts.

    Returns:
        Counts: rows of both splits; per kind the pairs and the test rows in them; contaminated rows; the
        words of the longest stretch. A row that matches exactly also matches normalised.

    Raises:
        BuildError: A rows file is missing or damaged, or the recipe refuses so many contaminated rows.
    """
    train, test = job.inputs["train"] / ROWS, job.inputs["test"] / ROWS
    matching = _Matching()
    leaks = Leaks(matching.asked(test))
    leaks.show(matching.said(train))
    similar, longest = leaks.found()
    exact, normalised = sorted(matching.exact), sorted(matching.normalised)
    kinds: dict[str, Any] = {"exact": exact, "normalised": normalised, "similar": similar}
    counts = {**matching.rows, "longest_match": longest}
    for kind, pairs in kinds.items():
        counts |= {f"{kind}_pairs": len(pairs), f"{kind}_test_rows": len({pair[1] for pair in pairs})}
    shown = {pair[1]: pair[0] for pair in (*similar, *reversed(normalised))}
    counts["contaminated_test_rows"] = len(shown)
    example = next((f"e.g. {shown[id]!r} shows {id!r}" for id in sorted(shown)), "")
    refuse_overlap(counts, job.slice.get("max_contaminated"), example)
    text = json.dumps({**counts, **kinds}, indent=1, sort_keys=True, ensure_ascii=False)
    (job.out / OVERLAP).write_text(text + "\n", encoding="utf-8")
    return counts


class Said(AskedRow, frozen=True, gc=False):
    """A row with its answer."""

    target: dict[str, Any] = {}


class _Matching:
    """Equal rows, found while all rows are read once: the test rows first."""

    def __init__(self) -> None:
        self.index: defaultdict[bytes, list[tuple[str, bytes]]] = defaultdict(list)
        """Normalised digest -> (id, exact digest) of the test rows that have it."""
        self.exact: Pairs = []
        self.normalised: Pairs = []  # the exact ones too
        self.rows = {"train_rows": 0, "test_rows": 0}

    def asked(self, path: Path) -> Iterator[Told]:
        """What the test rows ask."""
        for row in read_records(path, AskedRow):
            self.rows["test_rows"] += 1
            if row.asked:  # plain text asks nothing
                exact, normalised = digests(row.asked)
                self.index[normalised].append((row.id, exact))
            yield Told(row.id, row.group or row.id, list(texts_in(row.asked)))

    def said(self, path: Path) -> Iterator[Told]:
        """All that the training rows say."""
        for row in read_records(path, Said):
            self.rows["train_rows"] += 1
            own, key = digests(row.asked)
            for test, other in self.index.get(key, ()):
                self.normalised.append((row.id, test))
                if own == other:
                    self.exact.append((row.id, test))
            turns = [turn["content"] for turn in row.turns]
            yield Told(row.id, "", list(texts_in([row.prompt, row.target, turns])))


def digests(prompt: dict[str, Any]) -> Digests:
    """The exact and the normalised digest of what is asked (blake2b-128).

    The normalised one knows no field names, so that `{"instruction": X, "input": ""}` matches
    `{"question": X}`; but texts stay apart, so that the options "1", "23" are not the options "12", "3".
    A prompt of which nothing is left matches only prompts that are exactly equal.
    """
    plain = canonical(prompt)
    texts = [text for text in map(normalised, texts_in(prompt)) if text]
    return _digest(plain), _digest(orjson.dumps(texts) if texts else b"\0" + plain)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value, fields in the order of their names; numbers as they are written."""
    if isinstance(value, dict):
        for _, inner in sorted(value.items()):
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)
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
