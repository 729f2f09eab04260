"""Token rows on disk: what `shards` writes and what training and prediction read.

A shards folder holds

- `shard-00000.safetensors`, ...: `input_ids` int32 [tokens], `trained` uint8 [tokens] (1: the label
  counts), `offsets` int64 [rows + 1]; row i of the shard is `input_ids[offsets[i]:offsets[i + 1]]`;
- `rows.jsonl`: one line per row, in the order of the shards, sorted by id;
- `rendering.json`: the token ids that end an answer, and the padding id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workflow.errors import BuildError

ROWS, RENDERING = "rows.jsonl", "rendering.json"


@dataclass(frozen=True)
class TokenRow:
    """One row as the model sees it; for a test row there is only the prompt."""

    id: str
    input_ids: NDArray[np.int32]  # [tokens]
    trained: NDArray[np.uint8]  # [tokens], 1 where the label counts
    prompt_tokens: int


@dataclass(frozen=True)
class Rendering:
    """What prediction must know about how rows were rendered."""

    stop_token_ids: list[int]
    pad_token_id: int


def write_shard(folder: Path, number: int, rows: Sequence[TokenRow]) -> None:
    """Write one shard file and append its rows to the index."""
    from safetensors.numpy import save_file

    lengths = [len(row.input_ids) for row in rows]
    tensors = {
        "input_ids": np.concatenate([row.input_ids for row in rows]).astype(np.int32),
        "trained": np.concatenate([row.trained for row in rows]).astype(np.uint8),
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
    }
    save_file(tensors, folder / f"shard-{number:05d}.safetensors")
    with (folder / ROWS).open("a", encoding="utf-8") as index:
        for row in rows:
            line = {
                "id": row.id,
                "shard": number,
                "tokens": len(row.input_ids),
                "prompt_tokens": row.prompt_tokens,
                "trained_tokens": int(row.trained.sum()),
            }
            index.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_rendering(folder: Path, rendering: Rendering) -> None:
    """Write the ids that end an answer and the padding id."""
    (folder / RENDERING).write_text(json.dumps(asdict(rendering), sort_keys=True) + "\n")


def read_rendering(folder: Path) -> Rendering:
    """Read them back."""
    return Rendering(**json.loads((folder / RENDERING).read_text()))


def read_rows(folder: Path) -> Iterator[TokenRow]:
    """All rows of a shards folder in order, one shard in memory at a time.

    Raises:
        BuildError: The index and the shards disagree.
    """
    from safetensors.numpy import load_file

    opened, tensors, position = -1, {}, 0
    with (folder / ROWS).open(encoding="utf-8") as index:
        for line in index:
            record = json.loads(line)
            if record["shard"] != opened:
                opened, position = record["shard"], 0
                tensors = load_file(folder / f"shard-{opened:05d}.safetensors")
            begin, end = [*tensors["offsets"][position : position + 2], -1, -1][:2]
            if not 0 <= begin <= end or end - begin != record["tokens"]:
                raise BuildError(f"{folder / ROWS}: row {record['id']!r} does not fit its shard; build again")
            position += 1
            yield TokenRow(
                record["id"],
                tensors["input_ids"][begin:end],
                tensors["trained"][begin:end],
                record["prompt_tokens"],
            )
