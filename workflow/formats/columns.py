"""Any table: the recipe says which column is which template variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.row import BadRow, Row, fields_of
from workflow.recipe.dataset import ColumnsSource


def rows(record: Any, source: ColumnsSource) -> Iterator[Row]:
    """One row per record.

    Raises:
        BadRow: A column is missing or null, or an id or a right answer is no single value.
    """
    record = fields_of(record)
    yield Row(
        prompt={name: _value(record, column) for name, column in source.prompt.items()},
        target={name: _value(record, column) for name, column in source.target.items() if column in record},
        gold=_optional(record, source.gold),
        id=_id(record, source.id) if source.id else "",
    )


def _value(record: dict[str, Any], column: str) -> Any:
    value = record.get(column)
    if value is None:
        raise BadRow(f"{column}: missing; the row has {', '.join(map(str, record)) or 'no columns'}")
    return value


def _id(record: dict[str, Any], column: str) -> str:
    value = _value(record, column)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise BadRow(f"{column}: an id must be a text or a whole number, not {value!r}")
    return str(value)


def _optional(record: dict[str, Any], column: str | None) -> str | None:
    value = record.get(column) if column else None
    if isinstance(value, (list, dict)):
        raise BadRow(f"{column}: the right answer must be one value, not a {type(value).__name__}")
    return None if value is None or value == "" else str(value)
