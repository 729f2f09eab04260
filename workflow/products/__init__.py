"""One module per product: `make(job)` fills a folder and returns counts; `VERSION` counts its semantics.

A module knows neither Snakemake nor the command line, and imports heavy libraries only inside functions.
"""

from __future__ import annotations

from workflow.products import (
    adapter,
    merged,
    model,
    overlap,
    predictions,
    report,
    rows,
    scores,
    shards,
    tokenizer,
    voted,
)
from workflow.store.build import Make

MAKERS: dict[str, Make] = {
    "rows": rows.make,
    "overlap": overlap.make,
    "tokenizer": tokenizer.make,
    "model": model.make,
    "shards": shards.make,
    "adapter": adapter.make,
    "merged": merged.make,
    "predictions": predictions.make,
    "voted": voted.make,
    "scores": scores.make,
    "report": report.make,
}
"""Product -> the function that makes it, in the order of the flow."""

VERSIONS: dict[str, int] = {
    "rows": rows.VERSION,
    "overlap": overlap.VERSION,
    "tokenizer": tokenizer.VERSION,
    "model": model.VERSION,
    "shards": shards.VERSION,
    "adapter": adapter.VERSION,
    "merged": merged.VERSION,
    "predictions": predictions.VERSION,
    "voted": voted.VERSION,
    "scores": scores.VERSION,
    "report": report.VERSION,
}
"""Product -> version of its semantics, part of every address: raised when equal plans give other bytes."""
