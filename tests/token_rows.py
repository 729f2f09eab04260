"""Shards folders for tests of what makes them and what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from workflow.encoding import Encoded
from workflow.products.rows import CUTS, ROWS
from workflow.products.tokenizer import write_tokenizer
from workflow.sorting import Found, merge, write_cuts, write_run
from workflow.store.address import canonical
from workflow.store.build import Job, Resources
from workflow.tokens import TokenRow, digest_of_row, shard_bytes, shard_name

TINY = Path(__file__).parent.parent / "recipes/models/tiny-qwen2"
TEMPLATE = "{% block user %}{{ text }}{% endblock %}{% block assistant %}{{ answer }}{% endblock %}"


@cache
def tokenizer(folder: Path = TINY) -> Path:
    """The product `tokenizer` of a model's folder, made once."""
    made = TemporaryDirectory()
    _made.append(made)
    write_tokenizer(folder, Path(made.name))
    return Path(made.name)


_made: list[TemporaryDirectory[str]] = []  # deleted when Python ends


def row(number: int, text: str, answer: str = "答", rendered: str | None = None) -> dict[str, Any]:
    """A row of `rows.jsonl`."""
    return {
        "gold": [],
        "id": f"r{number:03d}",
        "index": 0,
        "prompt": {"text": text},
        "target": {"answer": answer},
        "rendered": rendered,
        "turns": [],
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
    write_rows(tmp_path / "rows", rows)
    (tmp_path / "p.jinja").write_text(TEMPLATE)
    chosen = {
        "split": split, "overflow": overflow,
        "chat_template": "model", "stop": None, "train_on": "last", "history": None, "gate": {},
        "max_length": total, "max_source_length": source, "max_target_length": target,
    }  # fmt: skip
    inputs = {"rows": tmp_path / "rows", "tokenizer": tokenizer()}
    return Job(
        chosen,
        inputs,
        {"template": tmp_path / "p.jinja"},
        tmp_path / "out",
        tmp_path,
        pieces or tmp_path / "pieces",
        resources=Resources(threads),
    )


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """What `rows` makes of rows that have ids."""
    found = [Found(one["id"], number, True, canonical(one)) for number, one in enumerate(rows, start=1)]
    part = merge([write_run(folder / "run", found)], folder / ROWS, folder, 1)
    write_cuts(folder / CUTS, part.cuts)


def write_shard(folder: Path, number: int, rows: Sequence[TokenRow]) -> None:
    """Write one shard, with digests that only tell its rows apart."""
    digests = [digest_of_row(row.id.encode()) for row in rows]
    (folder / shard_name(number)).write_bytes(shard_bytes(rows, digests))


def listed(encoded: Encoded) -> list[list[int]]:
    """The token ids of each text as plain lists."""
    return [ids.tolist() for ids in encoded.rows()]
