"""The one normal form of a row, whatever format it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LETTERS = "ABCDEFG"
"""Letters of up to seven options (round1 data has at most five)."""


class BadRow(ValueError):
    """A row that does not have the shape its format promises; the message names the field."""


@dataclass(frozen=True)
class Row:
    """A row: what the prompt may show, what only the answer may show, and the right answer.

    `id` is "" until `rows` gives it the digest of the row. `group` and `index` say which problem the
    row belongs to and its position there. `rendered` is the user turn as the source has it, where it has.
    """

    prompt: dict[str, Any]
    target: dict[str, Any] = field(default_factory=dict)
    gold: str | None = None
    id: str = ""
    group: str | None = None
    index: int = 0
    rendered: str | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """The row as plain JSON."""
        return dict(vars(self))


def fields_of(record: Any) -> dict[str, Any]:
    """The record itself.

    Raises:
        BadRow: It is no object.
    """
    if not isinstance(record, dict):
        raise BadRow(f"a row must be an object, not {type(record).__name__}")
    return record


def text_of(record: Any, name: str, default: str | None = None) -> str:
    """The string in field `name`.

    Raises:
        BadRow: It is missing (and there is no default), or not text.
    """
    value = fields_of(record).get(name)
    if value is None:
        value = default  # null is how many files write "absent"
    if value is None:
        raise BadRow(f"{name}: missing; the row has {', '.join(map(str, record)) or 'no fields'}")
    if not isinstance(value, str):
        raise BadRow(f"{name}: must be text, not {type(value).__name__}")
    return value
