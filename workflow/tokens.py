"""Token rows on disk: what `shards` writes and what training and prediction read.

A shards folder holds

- `shard-000000.safetensors`, ...: rows in the order of their ids; each file is a piece that other
  folders may share (`workflow.pieces`), so it says nothing about its neighbours;
- `rendering.json`: the token ids and texts that end an answer, and the padding id.

A shard's tensors, for its R rows (those left out included, with no tokens):

- `input_ids` int32 [tokens]; row i is `input_ids[offsets[i]:offsets[i + 1]]`
- `trained` uint8 [tokens / 8]: one bit per token (np.packbits), 1 where the label counts
- `offsets` int64 [R + 1], `prompt_tokens` int32 [R]
- `outcome` uint8 [R] (see `OUTCOMES`), `cut_tokens`, `lost_answers` int32 [R]: what the limits did
- `said` uint64 [R]: digest of the row's tokens and mask, equal where rows say the very same
- `digests` uint8 [R, 16]: of the row's id and messages
- `ids` uint8: the row ids as a JSON list
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from workflow.errors import BuildError
from workflow.store.address import canonical

RENDERING = "rendering.json"
OUTCOMES = ("kept", "dropped", "truncated", "over_limit")
"""What the limits did to a row; a dropped one has no tokens, one over a limit is kept whole (test rows)."""

_PER_ROW = "prompt_tokens outcome cut_tokens lost_answers said digests".split()


@dataclass(frozen=True)
class TokenRow:
    """One row as the model sees it; for a test row there is only the prompt."""

    id: str
    input_ids: NDArray[np.int32]  # [tokens]
    trained: NDArray[np.uint8]  # [tokens], 1 where the label counts
    prompt_tokens: int
    outcome: str = "kept"
    cut_tokens: int = 0
    lost_answers: int = 0


@dataclass(frozen=True)
class Rendering:
    """What prediction must know about how rows were rendered."""

    stop_token_ids: list[int]
    stop: list[str]
    pad_token_id: int


def digest_of_row(asked: bytes) -> bytes:
    """Half of the SHA-256 of what a row asks (JSON), 16 bytes."""
    return hashlib.sha256(asked).digest()[:16]


def shard_name(number: int) -> str:
    """The file of a folder's shard, so that names sort as numbers do."""
    return f"shard-{number:06d}.safetensors"


def shard_bytes(rows: Sequence[TokenRow], digests: Sequence[bytes]) -> bytes:
    """The file of a shard, with its counts in the header: equal rows give equal bytes."""
    from safetensors.numpy import save

    none = np.zeros(0, np.int32)
    trained = np.concatenate([none.astype(np.uint8), *(row.trained for row in rows)])
    tensors = {
        "input_ids": np.concatenate([none, *(row.input_ids for row in rows)]).astype(np.int32),
        "trained": np.packbits(trained),
        "offsets": np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int64),
        "prompt_tokens": np.array([row.prompt_tokens for row in rows], np.int32),
        "outcome": np.array([OUTCOMES.index(row.outcome) for row in rows], np.uint8),
        "cut_tokens": np.array([row.cut_tokens for row in rows], np.int32),
        "lost_answers": np.array([row.lost_answers for row in rows], np.int32),
        "said": np.frombuffer(b"".join(map(_said, rows)), np.uint64),
        "digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
        "ids": np.frombuffer(orjson.dumps([row.id for row in rows]), np.uint8),
    }
    return bytes(save(tensors, {"counts": canonical(_counts(tensors)).decode()}))


def _said(row: TokenRow) -> bytes:
    """8 bytes: among a million different rows two are equal once in 4e7 times."""
    digest = hashlib.sha256(row.input_ids.astype(np.int32, copy=False).data)
    digest.update(row.trained.data)
    return digest.digest()[:8]


def _counts(tensors: dict[str, NDArray[Any]]) -> dict[str, int]:
    """Rows, tokens and what the limits did, to be added up; `longest` is a maximum."""
    outcomes = np.bincount(tensors["outcome"], minlength=len(OUTCOMES)).tolist()
    lengths = _lengths(tensors)
    return {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "trained_tokens": int(np.bitwise_count(tensors["trained"]).sum(dtype=np.int64)),
        "cut_tokens": int(tensors["cut_tokens"].sum(dtype=np.int64)),
        "lost_answers": int(tensors["lost_answers"].sum(dtype=np.int64)),
        "longest": int(lengths.max(initial=0)),
        **dict(zip(OUTCOMES[1:], outcomes[1:], strict=True)),
    }


def _lengths(tensors: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = np.diff(tensors["offsets"])[tensors["outcome"] != OUTCOMES.index("dropped")]
    return lengths


def shard_counts(path: Path) -> tuple[dict[str, int], NDArray[np.uint64]]:
    """The counts in a shard's header, and what each row that is there says (`said`); no more is read.

    Raises:
        BuildError: It is no shard.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            counts: dict[str, int] = orjson.loads(file.metadata()["counts"])
            there = file.get_tensor("outcome") != OUTCOMES.index("dropped")
            return counts, file.get_tensor("said")[there]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BuildError(f"{path}: not a shard ({error}); build again") from None


class Shard:
    """One shard in memory."""

    def __init__(self, path: Path):
        """Read the file.

        Raises:
            BuildError: It is no shard, or its parts disagree.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            self.tensors: dict[str, Any] = load(path.read_bytes())
            self.ids: list[str] = orjson.loads(self.tensors["ids"].tobytes())
            tokens = len(self.tensors["input_ids"])
            offsets = self.tensors["offsets"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise BuildError(f"{path}: not a shard ({error}); build again") from None
        rows = [len(self.tensors[name]) for name in _PER_ROW]
        fits = {len(self.ids), len(offsets) - 1, *rows} == {len(self.ids)}
        ordered = offsets[0] == 0 and offsets[-1] == tokens and bool(np.all(np.diff(offsets) >= 0))
        if not (fits and ordered and -(-tokens // 8) == len(self.tensors["trained"])):
            raise BuildError(f"{path}: the parts of this shard do not fit together; build again")

    @cached_property
    def _trained(self) -> NDArray[np.uint8]:
        return np.unpackbits(self.tensors["trained"], count=len(self.tensors["input_ids"]))

    def row(self, index: int) -> TokenRow:
        """A row, left out or not."""
        begin, end = self.tensors["offsets"][index : index + 2]
        return TokenRow(
            self.ids[index],
            self.tensors["input_ids"][begin:end],
            self._trained[begin:end],
            int(self.tensors["prompt_tokens"][index]),
            OUTCOMES[self.tensors["outcome"][index]],
            int(self.tensors["cut_tokens"][index]),
            int(self.tensors["lost_answers"][index]),
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row that is there."""
        return _lengths(self.tensors)

    def known(self) -> dict[bytes, int]:
        """Digest of a row's id and messages -> its place."""
        digests = self.tensors["digests"].tobytes()
        return {digests[16 * i : 16 * i + 16]: i for i in range(len(self.ids))}


def write_rendering(folder: Path, rendering: Rendering) -> None:
    """Write `rendering.json`."""
    (folder / RENDERING).write_bytes(canonical(asdict(rendering)) + b"\n")


def read_rendering(folder: Path) -> Rendering:
    """Read `rendering.json`."""
    return Rendering(**json.loads((folder / RENDERING).read_text()))


def read_shards(folder: Path) -> Iterator[Shard]:
    """The shards of a folder in order, one in memory at a time.

    Raises:
        BuildError: One is missing or damaged.
    """
    paths = sorted(folder.glob("shard-*.safetensors"))
    for number, path in enumerate(paths):
        if path.name != shard_name(number):
            raise BuildError(f"{folder / shard_name(number)}: missing; build again")
        yield Shard(path)


def read_rows(folder: Path) -> Iterator[TokenRow]:
    """All rows of a shards folder that were not left out, sorted by id, one shard in memory at a time.

    Raises:
        BuildError: A shard is missing or damaged.
    """
    for shard in read_shards(folder):
        for index, outcome in enumerate(shard.tensors["outcome"]):
            if OUTCOMES[outcome] != "dropped":
                yield shard.row(index)
