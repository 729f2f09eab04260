"""One module per product: `make(job)` fills a folder and returns counts.

A module knows neither Snakemake nor the command line, and imports heavy libraries only inside functions.
It is imported when it is needed: drawing a graph needs none, a job its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from workflow.store.build import Make

VERSIONS = {
    "rows": 2,
    "mixture": 1,
    "overlap": 2,
    "tokenizer": 2,
    "model": 1,
    "shards": 3,
    "adapter": 3,
    "merged": 2,
    "predictions": 1,
    "likelihood": 1,
    "voted": 1,
    "scores": 3,
    "report": 3,
    "review": 1,
    "experiment": 1,
    "served": 1,
}
"""Product -> version of its semantics, part of every address: raised when equal plans give other bytes."""

PRODUCTS = tuple(VERSIONS)
"""In the order of the flow."""


class _Makers(Mapping[str, Make]):
    def __getitem__(self, product: str) -> Make:
        if product not in VERSIONS:
            raise KeyError(product)
        make: Make = import_module(f"workflow.products.{product}").make
        return make

    def __iter__(self) -> Iterator[str]:
        return iter(PRODUCTS)

    def __len__(self) -> int:
        return len(PRODUCTS)


MAKERS: Mapping[str, Make] = _Makers()
"""Product -> the function that makes it."""
