"""One module per product: `make(job)` fills a folder and returns counts; `VERSION` counts its semantics.

A module knows neither Snakemake nor the command line, and imports heavy libraries only inside functions.
It is imported when it is needed: a job that finds its product made starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar

from workflow.store.build import Make

PRODUCTS = (
    *("rows", "overlap", "tokenizer", "model", "shards", "adapter"),
    *("merged", "predictions", "voted", "scores", "report"),
)
"""In the order of the flow."""

Value = TypeVar("Value")


class _OfModules(Mapping[str, Value]):
    """Product -> what its module calls `name`."""

    def __init__(self, name: str):
        self.name = name

    def __getitem__(self, product: str) -> Value:
        if product not in PRODUCTS:
            raise KeyError(product)
        found: Any = getattr(import_module(f"workflow.products.{product}"), self.name)
        return found  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(PRODUCTS)

    def __len__(self) -> int:
        return len(PRODUCTS)


MAKERS: Mapping[str, Make] = _OfModules("make")
"""Product -> the function that makes it."""

VERSIONS: Mapping[str, int] = _OfModules("VERSION")
"""Product -> version of its semantics, part of every address: raised when equal plans give other bytes."""
