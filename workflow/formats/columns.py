"""Any table: the recipe says which column is which template variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.record import at, fields_of, value_of
from workflow.formats.row import BadRow, Row
from workflow.recipe.formats import ColumnsSource


def rows(record: Any, source: ColumnsSource) -> Iterator[Row]:
    """One row per record.

    Raises:
        BadRow: A column is missing or null, or a right answer is no single value.
    """
    record = fields_of(record)
    target: dict[str, Any] = {}
    for name, column in source.target.items():
        value = at(record, column)
        if value is None and column in record:
            raise BadRow(f"{column}: null; give it a value or take the column out")
        if value is not None:
            target[name] = value
    columns = [source.gold] if isinstance(source.gold, str) else source.gold or ()
    yield Row(
        prompt={name: value_of(record, column) for name, column in source.prompt.items()},
        target=target,
        gold=[answer for column in columns for answer in _answers(at(record, column), column)],
    )


def _answers(value: Any, column: str) -> list[str]:
    """The accepted answers in one column; none where there is nothing."""
    found = value if isinstance(value, list) else [value]
    if any(isinstance(answer, (list, dict)) for answer in found):
        kind = "lists" if isinstance(value, list) else "a dict"
        raise BadRow(f"{column}: a right answer must be one value, or several in a list, not {kind}")
    return [str(answer) for answer in found if answer is not None and answer != ""]
