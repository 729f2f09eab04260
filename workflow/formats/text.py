"""Plain text: all of it is trained, nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.record import text_of
from workflow.formats.row import Row
from workflow.recipe.formats import TextSource


def rows(record: Any, source: TextSource) -> Iterator[Row]:
    """One row per record, with the target field `text` and no prompt.

    Raises:
        BadRow: The column is missing or no text.
    """
    yield Row(prompt={}, target={"text": text_of(record, source.text_column)})
