"""Any table: the recipe says which column is which template variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.row import BadRow, Row, text_of
from workflow.recipe.dataset import ColumnsSource


def rows(record: Any, source: ColumnsSource) -> Iterator[Row]:
    """One row per record.

    Raises:
        BadRow: A column is missing or empty of value.
    """
    text_of(record, "", default="")  # a record that is no object has no columns
    yield Row(
        prompt={name: _value(record, column) for name, column in source.prompt.items()},
        target={name: _value(record, column) for name, column in source.target.items() if column in record},
        gold=_optional(record, source.gold),
        id=str(_value(record, source.id)) if source.id else "",
    )


def _value(record: dict[str, Any], column: str) -> Any:
    value = record.get(column)
    if value is None:
        raise BadRow(f"{column}: missing; the row has {', '.join(map(str, record)) or 'no columns'}")
    return value


def _optional(record: dict[str, Any], column: str | None) -> str | None:
    value = record.get(column) if column else None
    return None if value is None or value == "" else str(value)
