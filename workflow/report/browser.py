"""The browsable table of predictions: rows as JSON in the page, and the script that shows them."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from workflow.report.inputs import Inputs

ITEMS = "items.jsonl"
ROWS, LETTERS = 5000, 12_000_000
"""Most rows in a page, and about how many letters of them: a browser opens it at once."""
SCRIPT = Path(__file__).with_name("browser.js")


@dataclass
class Kept:
    """The rows whose ids have the smallest digests, as far as they have room."""

    rows: int = ROWS
    letters: int = LETTERS
    seen: int = 0
    held: list[tuple[int, str, str]] = field(default_factory=list)  # a heap: largest digest first
    size: int = 0
    full: bool = False

    def wants(self, digest: bytes) -> bool:
        """Whether a row would be kept; every row is to be asked about once."""
        self.seen += 1
        return not self.full or -int.from_bytes(digest) > self.held[0][0]

    def add(self, digest: bytes, row: str, record: Mapping[str, Any]) -> None:
        """Keep a row; others may go for it."""
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        heapq.heappush(self.held, (-int.from_bytes(digest), row, text))
        self.size += len(text)
        while len(self.held) > 1 and (len(self.held) > self.rows or self.size > self.letters):
            self.size -= len(heapq.heappop(self.held)[2])
            self.full = True

    @property
    def data(self) -> Markup:
        """All of them, by id, as JSON that no text can end the script element of."""
        rows = ",".join(text for _, _, text in sorted(self.held, key=lambda found: found[1]))
        return Markup("[" + rows.replace("<", "\\u003c").replace("\u2028", "\\u2028") + "]")

    @property
    def left_out(self) -> int:
        """Rows that the page does not hold."""
        return self.seen - len(self.held)


class Worth:
    """What each row is worth, from `items.jsonl` of the scores; rows are asked about by rising id."""

    def __init__(self, inputs: Inputs):
        """Read the scores of `inputs`, where there are any."""
        there = "scores" in inputs and (inputs.folders["scores"] / ITEMS).is_file()
        self.items: Iterator[dict[str, Any]] = inputs.records("scores", ITEMS) if there else iter(())
        self.next = next(self.items, None)

    def of(self, row: str) -> dict[str, Any]:
        """Metric -> system -> value; empty for a row that is not scored."""
        while self.next and self.next["id"] < row:
            self.next = next(self.items, None)
        return dict(self.next["values"]) if self.next and self.next["id"] == row else {}


def script() -> tuple[Markup, str]:
    """The script, and the source of it that the page's policy allows: it and no other runs."""
    text = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"'sha256-{digest}'"
