"""Few-shot prompting: the training rows that a row is shown, by the recipe's `prompt.examples`.

A row is never shown itself, a row that asks the same (but for case, white space and punctuation), or another
question of its own problem: none could tell it its answer. Which rows it is shown depends on what it asks and
on its id, never on its answer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from workflow.errors import BuildError
from workflow.products.overlap import digests, texts_in
from workflow.products.rows import ROWS
from workflow.results import AskedRow
from workflow.similar import Bm25
from workflow.store.address import canonical

NAME = "examples"
"""What templates, recipes and plans call them."""


class Examples:
    """The training rows, any of which may be shown; their lines are held in memory."""

    def __init__(self, rows: Path, chosen: dict[str, Any]):
        """Read the product `rows` of the training split.

        Args:
            rows: Its folder.
            chosen: The slice's `examples`.
        """
        self.k, self.select, self.seed = int(chosen["k"]), chosen["select"], chosen["seed"]
        self.lines = (rows / ROWS).read_bytes().splitlines()
        self.kin: defaultdict[bytes, set[int]] = defaultdict(set)
        """What rows have in common that may not be shown to each other -> their places."""
        self.ids: list[str] = []
        for place, row in enumerate(map(_row, self.lines)):
            self.ids.append(row.id)
            for mark in _marks(row):
                self.kin[mark].add(place)

    def prepare(self) -> None:
        """Make what most rows need, before processes are forked."""
        _ = self._index if self.select == "similar" else self._ring

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row, with its examples in its prompt: each all fields of a training row, answer included.

        Raises:
            BuildError: The row has a field of that name, or too few rows may be shown.
        """
        if NAME in row["prompt"]:
            raise BuildError(
                f"row {row['id']}: its field {NAME!r} is in the way of prompt.examples; rename it"
            )
        asked = AskedRow.model_validate(row)
        kin: set[int] = set().union(*(self.kin.get(mark, ()) for mark in _marks(asked)))
        places = list(islice((place for place in self._order(asked, kin) if place not in kin), self.k))
        if len(places) < self.k:
            raise BuildError(
                f"row {row['id']}: prompt.examples.k is {self.k}; training rows to show: {len(places)}"
            )
        if self.select == "similar":
            places.reverse()
        return {**row, "prompt": {**row["prompt"], NAME: [_fields(self.lines[i]) for i in places]}}

    def _order(self, row: AskedRow, kin: Collection[int]) -> Iterator[int]:
        """Places of training rows, those to be shown first; each once."""
        if self.select == "similar":
            return self._most_similar(row, len(kin))
        if self.select == "fixed":
            return iter(self._ring[1].tolist())
        return self._random(row, kin)

    @cached_property
    def _ring(self) -> tuple[Any, Any]:
        """Hashes of all ids, rising, and the places of these rows."""
        hashes = np.array([_hash([self.seed, id]) for id in self.ids], np.uint64)
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _random(self, row: AskedRow, kin: Collection[int]) -> Iterator[int]:
        """For each example the next row behind a point on the ring: other rows may come and go."""
        hashes, order = self._ring
        seen: set[int] = set()
        for number in range(self.k):
            first = int(np.searchsorted(hashes, np.uint64(_hash([self.seed, row.id, number]))))
            for at in chain(range(first, len(order)), range(first)):
                place = int(order[at])
                if place not in seen and place not in kin:
                    seen.add(place)
                    yield place
                    break

    @cached_property
    def _index(self) -> Bm25:
        return Bm25(["\n".join(texts_in(_row(line).asked)) for line in self.lines])

    def _most_similar(self, row: AskedRow, more: int) -> Iterator[int]:
        """By falling score, among equals by id; `more` than are shown."""
        scores = self._index.scores("\n".join(texts_in(row.asked)))
        wanted = min(len(scores), self.k + more)
        if not wanted:
            return iter(())
        least = np.partition(scores, -wanted)[-wanted]
        near = np.flatnonzero(scores >= least)
        return iter(near[np.argsort(-scores[near], kind="stable")].tolist())


def examples_of(chosen: dict[str, Any], inputs: Mapping[str, Path]) -> Examples | None:
    """The examples that a slice of `shards` asks for; None where it asks for none."""
    return Examples(inputs[NAME], chosen[NAME]) if NAME in chosen else None


def _row(line: bytes) -> AskedRow:
    return AskedRow.model_validate_json(line)


def _marks(row: AskedRow) -> list[bytes]:
    """What no other row that is shown may have: its id, its problem, what it asks."""
    problem = [] if row.group is None else [canonical(["problem", row.group])]
    return [canonical(["id", row.id]), digests(row.asked)[1], *problem]


def _hash(value: Any) -> int:
    """64 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(canonical(value), digest_size=8).digest(), "big")


def _fields(line: bytes) -> dict[str, Any]:
    """What a template sees of an example: its prompt, its answer, and its turns where it has some."""
    row = orjson.loads(line)
    turns = {"turns": row["turns"]} if row["turns"] else {}
    return {**row["prompt"], **turns, **row["target"]}
