"""review: greedy answers of two arms side by side, for people who do not see which is which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.report.page import render
from workflow.report.samples import asked_as_text
from workflow.results import PREDICTIONS, AskedRow, Prediction, read_together
from workflow.review import KEY, ONE, OTHER, PAGE, SHEET, Asked, sheet
from workflow.store.address import canonical
from workflow.store.build import Job


def make(job: Job) -> dict[str, Any]:
    """Write `review.csv` and `review.html`, which are blind, and `key.json`, which says what A is.

    Rows whose two answers are the same text are left out, since nobody can prefer one. Choice, order and side
    are hashes of seed and row id.

    Returns:
        Counts: rows; rows to judge; rows answered alike.

    Raises:
        BuildError: The inputs are not about the same rows, or damaged.
    """
    found, rows = [], 0
    for rows, line in enumerate(_lines(job), start=1):  # noqa: B007  (the last number is their count)
        found += [line] if line else []
    if not rows:
        raise BuildError(f"{job.inputs['rows'] / ROWS}: no rows; there is nothing to judge")
    chosen = [line for _, line in sorted(found, key=lambda pair: pair[0])[: job.slice["rows"]]]
    (job.out / SHEET).write_bytes(sheet(chosen).encode("utf-8", "replace"))
    page = render("review.html.jinja", lines=chosen)
    (job.out / PAGE).write_bytes(page.encode("utf-8", "replace"))
    (job.out / KEY).write_bytes(canonical({line.check: line.a for line in chosen}) + b"\n")
    return {"rows": rows, "judged": len(chosen), "alike": rows - len(found)}


def _lines(job: Job) -> Iterator[tuple[str, Asked] | None]:
    """Each row with what orders it; None for one whose answers are the same."""
    seed = job.slice["seed"]
    files = (
        (job.inputs["rows"] / ROWS, AskedRow),
        *((job.inputs[r] / PREDICTIONS, Prediction) for r in (ONE, OTHER)),
    )
    for row, one, other in read_together(*files):
        texts = one.draws[0].text, other.draws[0].text
        if texts[0].strip() == texts[1].strip():
            yield None
            continue
        order = _digest(seed, row.id)
        swapped = int(_digest(seed, row.id, "side"), 16) % 2
        check = _digest(seed, row.id, *texts)[:12]
        a = (ONE, OTHER)[swapped]
        yield order, Asked(check, asked_as_text(row), (texts[swapped], texts[1 - swapped]), a)


def _digest(*parts: object) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
