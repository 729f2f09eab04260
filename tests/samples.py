"""Rows of real samples in tests/data, read as a recipe's source says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from workflow.formats import Dropped, Row, reader
from workflow.formats.reading import records
from workflow.recipe.dataset import Source

DATA = Path(__file__).parent / "data"


def source(**fields: Any) -> Any:
    """The recipe section with these fields."""
    return TypeAdapter(Source).validate_python({"path": "x.json", **fields})


def found_in(record: Any, **fields: Any) -> list[Row | Dropped]:
    """All that a source finds in one record."""
    return list(reader(source(**fields))(record))


def found_in_all(file: str, **fields: Any) -> list[Row | Dropped]:
    """All that a source finds in a sample."""
    return [row for _, record in records(DATA / file) for row in found_in(record, **fields)]


def rows_of(record: Any, **fields: Any) -> list[Row]:
    """The rows that a source finds in one record, none left out."""
    found = found_in(record, **fields)
    assert [row for row in found if isinstance(row, Dropped)] == []
    return [row for row in found if isinstance(row, Row)]


def rows_in(file: str, **fields: Any) -> list[Row]:
    """All rows of a sample."""
    return [row for _, record in records(DATA / file) for row in rows_of(record, **fields)]
