"""Fields of one record as it was read, by name or by a path with dots."""

from __future__ import annotations

from typing import Any

from workflow.formats.row import BadRow


def fields_of(record: Any) -> dict[str, Any]:
    """The record itself.

    Raises:
        BadRow: It is no object.
    """
    if not isinstance(record, dict):
        raise BadRow(f"a row must be an object, not {type(record).__name__}")
    return record


def at(record: dict[str, Any], path: str) -> Any:
    """The value at `path`, e.g. `instances.0.input`; None if there is none.

    A column whose whole name is `path`, dots and all, goes first.
    """
    value = record.get(path)
    if value is None and "." in path and path not in record:
        value = record
        for name in path.split("."):
            value = _inside(value, name)
    return value


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
        return value[int(name)]
    return None


def value_of(record: dict[str, Any], path: str) -> Any:
    """The value at `path`.

    Raises:
        BadRow: It is missing or null.
    """
    value = record.get(path)
    if value is None and (value := at(record, path)) is None:
        raise missing(record, path)
    return value


def missing(record: dict[str, Any], path: str) -> BadRow:
    """The error for a field that must be there."""
    return BadRow(f"{path}: missing; the row has {', '.join(map(str, record)) or 'no fields'}")


def text_of(record: Any, path: str, default: str | None = None) -> str:
    """The string at `path`.

    Raises:
        BadRow: It is missing (and there is no default), or not text.
    """
    if type(record) is dict and type(value := record.get(path)) is str:
        return value  # nearly always; a row has several, so it counts
    value = at(fields_of(record), path)
    if value is None:
        value = default  # null is how many files write "absent"
    if value is None:
        raise missing(record, path)
    if not isinstance(value, str):
        raise BadRow(f"{path}: must be text, not {type(value).__name__}")
    return value


def id_of(record: dict[str, Any], path: str) -> str:
    """The row id at `path`.

    Raises:
        BadRow: It is missing, or neither text nor a whole number.
    """
    value = value_of(record, path)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise BadRow(f"{path}: an id must be a text or a whole number, not {value!r}")
    return str(value)
