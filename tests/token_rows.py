"""Shards folders for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflow.encoding import Encoded
from workflow.tokens import (
    RENDERING,
    Rendering,
    TokenRow,
    digest_of_line,
    rendering_bytes,
    shard_bytes,
    shard_name,
)


def write_shard(folder: Path, number: int, rows: Sequence[TokenRow]) -> None:
    """Write one shard, with digests that only tell its rows apart."""
    digests = [digest_of_line(row.id.encode()) for row in rows]
    (folder / shard_name(number)).write_bytes(shard_bytes(rows, digests))


def write_rendering(folder: Path, rendering: Rendering) -> None:
    """Write what prediction must know about the tokenizer."""
    (folder / RENDERING).write_bytes(rendering_bytes(rendering))


def listed(encoded: Encoded) -> list[list[int]]:
    """The token ids of each text as plain lists."""
    return [ids.tolist() for ids in encoded.rows()]
