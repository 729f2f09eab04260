"""Shards folders for tests of what makes them and what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow.encoding import Encoded
from workflow.store.address import canonical
from workflow.store.build import Job, Resources
from workflow.tokens import (
    RENDERING,
    Rendering,
    TokenRow,
    digest_of_row,
    rendering_bytes,
    shard_bytes,
    shard_name,
)

TINY = Path(__file__).parent.parent / "recipes/models/tiny-qwen2"
TEMPLATE = "{% block user %}{{ text }}{% endblock %}{% block assistant %}{{ answer }}{% endblock %}"


def row(number: int, text: str, answer: str = "答", rendered: str | None = None) -> dict[str, Any]:
    """A row of `rows.jsonl`."""
    return {
        "gold": [],
        "id": f"r{number:03d}",
        "index": 0,
        "prompt": {"text": text},
        "target": {"answer": answer},
        "rendered": rendered,
    }


def job(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    split: str = "train",
    overflow: str = "error",
    limits: Any = 10_000,
    pieces: Path | None = None,
    threads: int = 1,
) -> Job:
    """A job of `shards`; `limits` is one number or a triple."""
    total, source, target = limits if isinstance(limits, tuple) else (limits, None, None)
    for name in ("rows", "out"):
        (tmp_path / name).mkdir(exist_ok=True, parents=True)
    (tmp_path / "rows/rows.jsonl").write_bytes(b"".join(canonical(r) + b"\n" for r in rows))
    (tmp_path / "p.jinja").write_text(TEMPLATE)
    chosen = {
        "split": split, "overflow": overflow,
        "max_length": total, "max_source_length": source, "max_target_length": target,
    }  # fmt: skip
    inputs = {"rows": tmp_path / "rows", "tokenizer": TINY}
    return Job(
        chosen,
        inputs,
        {"template": tmp_path / "p.jinja"},
        tmp_path / "out",
        tmp_path,
        pieces or tmp_path / "pieces",
        resources=Resources(threads),
    )


def write_shard(folder: Path, number: int, rows: Sequence[TokenRow]) -> None:
    """Write one shard, with digests that only tell its rows apart."""
    digests = [digest_of_row(row.id.encode()) for row in rows]
    (folder / shard_name(number)).write_bytes(shard_bytes(rows, digests))


def write_rendering(folder: Path, rendering: Rendering) -> None:
    """Write what prediction must know about the tokenizer."""
    (folder / RENDERING).write_bytes(rendering_bytes(rendering))


def listed(encoded: Encoded) -> list[list[int]]:
    """The token ids of each text as plain lists."""
    return [ids.tolist() for ids in encoded.rows()]
