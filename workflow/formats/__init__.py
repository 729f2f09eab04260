"""Data formats: each turns one record of a source into rows of the one normal form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from workflow.errors import BuildError
from workflow.formats import alpaca, columns, round1
from workflow.formats.row import BadRow, Row
from workflow.patterns import compile_pattern
from workflow.recipe.dataset import AlpacaSource, ColumnsSource, Round1Source

__all__ = ["BadRow", "Row", "reader"]


def reader(source: Round1Source | AlpacaSource | ColumnsSource) -> Callable[[Any], Iterator[Row]]:
    """The function that turns one record of `source` into its rows.

    Raises:
        BuildError: Its pattern is not RE2.
    """
    if isinstance(source, Round1Source):
        return round1.rows
    if isinstance(source, AlpacaSource):
        try:
            compile_pattern(source.parse.pattern if source.parse else "")
        except ValueError as error:
            raise BuildError(f"{source.path}: parse.pattern: {error}") from None
        return partial(alpaca.rows, parse=source.parse)
    return partial(columns.rows, source=source)
