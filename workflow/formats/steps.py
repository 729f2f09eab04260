"""What happens to a record before its format reads it, and to the rows after: fill, clean, choose, name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from workflow.formats.record import at, fields_of, id_of, value_of
from workflow.formats.row import BadRow, Dropped, Row
from workflow.recipe.source import Condition, RecordSource, SourceFile

Found = Iterator[Row | Dropped]
Change = Callable[[str], str]

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_RUN = re.compile(r"\s+")


@dataclass(frozen=True)
class Steps:
    """The steps of one source."""

    changes: list[Change]
    where: list[tuple[Callable[[dict[str, Any]], bool], str]]
    drop_empty: bool
    id: str | None
    explode: str | None

    @classmethod
    def of(cls, source: SourceFile) -> Steps:
        """What `source` asks for."""
        named = source if isinstance(source, RecordSource) else None
        fill = [partial(_filled, texts=dict(source.fill))] if source.fill else []
        return cls(
            changes=[*fill, *(_CLEAN[step] for step in source.clean if step != "drop_empty")],
            where=[test for condition in source.where for test in _tests(condition)],
            drop_empty="drop_empty" in source.clean,
            id=named.id if named else None,
            explode=named.explode if named else None,
        )

    @property
    def nothing(self) -> bool:
        """Whether rows are what the format makes of the records as they are."""
        return not (self.changes or self.where or self.drop_empty or self.id or self.explode)

    def rows(self, record: Any, read: Callable[[Any], Found]) -> Found:
        """The rows that `read` finds in a record, and reasons where rows are left out.

        Raises:
            BadRow: As `read`, or a placeholder or an id is missing, or there is no list to explode.
        """
        try:
            for change in self.changes:
                record = _changed(record, change)
        except RecursionError:
            raise BadRow("values are nested too deep") from None
        if self.explode is None:
            yield from self._chosen(record, None, read)
            return
        items = value_of(fields_of(record), self.explode)
        if not isinstance(items, list):
            raise BadRow(f"{self.explode}: must be a list to explode, not {type(items).__name__}")
        for position, item in enumerate(items):
            yield from self._chosen({**record, self.explode: item}, position, read)

    def _failed(self, record: Any) -> str | None:
        """The first condition that the record fails."""
        try:
            return next((reason for holds, reason in self.where if not holds(fields_of(record))), None)
        except RecursionError:
            raise BadRow("values are nested too deep") from None

    def _chosen(self, record: Any, position: int | None, read: Callable[[Any], Found]) -> Found:
        if reason := self._failed(record):
            yield Dropped(reason)
            return
        name = id_of(fields_of(record), self.id) if self.id else ""
        for row in read(record):
            if isinstance(row, Row):
                if self.drop_empty and _is_empty(row):
                    yield Dropped("empty")
                    continue
                if name and position is None:
                    row.id = name
                elif name:
                    row.id, row.group, row.index = f"{name}#{position}", name, position
            yield row


def _changed(value: Any, change: Change) -> Any:
    """The same value with all its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_changed(inner, change) for inner in value]
    return value


def _filled(text: str, texts: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(partial(_text_for, texts=texts), text) if "{{" in text else text


def _text_for(match: re.Match[str], texts: dict[str, str]) -> str:
    if match[1] not in texts:
        raise BadRow(f"{match[0]}: a placeholder without a text; add {match[1]} to `fill`")
    return texts[match[1]]


def _collapsed(text: str) -> str:
    return _RUN.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


_CLEAN: dict[str, Change] = {
    "strip": str.strip,
    "nfc": partial(unicodedata.normalize, "NFC"),
    "collapse_whitespace": _collapsed,
}


def _is_empty(row: Row) -> bool:
    """Whether there is no text in the prompt, in the target or in the last answer."""
    if row.turns:
        return not row.turns[-1]["content"].strip()
    return any(part and not _characters(part, blank=False) for part in (row.prompt, row.target))


def _characters(value: Any, blank: bool = True) -> int:
    """Characters of all texts in a value; numbers as they are written; white space only if `blank`."""
    if isinstance(value, str):
        return len(value if blank else value.strip())
    if isinstance(value, dict):
        return sum(_characters(inner, blank) for inner in value.values())
    if isinstance(value, list):
        return sum(_characters(inner, blank) for inner in value)
    return 0 if value is None else len(_plain(value))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _tests(condition: Condition) -> Iterator[tuple[Callable[[dict[str, Any]], bool], str]]:
    """Each thing that a condition asks, and the reason why a record that fails it is left out."""
    path, least, most = condition.field, condition.min_characters, condition.max_characters
    if condition.present is not None:
        wanted = condition.present
        yield (
            (lambda r: (at(r, path) not in (None, "")) == wanted),
            f"{path}: {'absent' if wanted else 'present'}",
        )
    if condition.one_of is not None:
        among = frozenset(map(_plain, condition.one_of))
        yield (lambda r: _plain(at(r, path)) in among), f"{path}: none of one_of"
    if condition.none_of is not None:
        without = frozenset(map(_plain, condition.none_of))
        yield (lambda r: _plain(at(r, path)) not in without), f"{path}: one of none_of"
    if least is not None:
        yield (lambda r: _characters(at(r, path)) >= least), f"{path}: under {least} characters"
    if most is not None:
        yield (lambda r: _characters(at(r, path)) <= most), f"{path}: over {most} characters"
