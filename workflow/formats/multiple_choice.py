"""Single-choice questions: question, options, label, and perhaps a passage that the question is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from workflow.formats.options import lettered_lines, without_letters
from workflow.formats.record import at, fields_of, text_of, value_of
from workflow.formats.row import BadRow, Dropped, Row
from workflow.recipe.formats import Choice, MultipleChoiceSource
from workflow.store.address import address_of

_BETWEEN = re.compile(r"[\s.,;/|&(){}\[\]，、；．。（）【】]+")
"""What may stand around and between letters: `(A)`, `A.`, `A, C`."""


class _SeveralError(Exception):
    """A question has several right options."""


def rows(record: Any, source: MultipleChoiceSource) -> Iterator[Row | Dropped]:
    """One row per record: `question`, `options` (without letters), `passage` if any; `answer`, a letter.

    Raises:
        BadRow: A field is missing, there are no two options, or the label is none of them.
    """
    record, choice = fields_of(record), source.choice
    question, options = _question(record, choice)
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise BadRow(f"options: there must be 2 to {len(ascii_uppercase)}, not {len(options)}")
    try:
        gold = _gold(at(record, choice.label), options, choice)
    except _SeveralError as several:
        if choice.several == "error":
            raise BadRow(
                f"{choice.label}: several right options, {several}; `several: drop` leaves such rows out"
            ) from None
        yield Dropped("several right options")
        return
    row = Row(prompt={"question": question, "options": options})
    if gold is not None:
        row.target, row.gold = {"answer": gold}, [gold]
    if choice.passage:
        passage = text_of(record, choice.passage)
        row.prompt = {"passage": passage, **row.prompt}
        row.group, row.index = address_of(passage), None
    yield row


def _question(record: dict[str, Any], choice: Choice) -> tuple[str, list[str]]:
    """The question and its options."""
    question = text_of(record, choice.question)
    if choice.options_behind:
        before, mark, behind = question.partition(f"\n{choice.options_behind}\n")
        if not mark:
            raise BadRow(f"{choice.question}: has no line {choice.options_behind!r}")
        return before, lettered_lines(behind, choice.question)
    if isinstance(choice.options, list):
        found = [at(record, column) for column in choice.options]
        while found and found[-1] in (None, ""):
            found.pop()
        return question, _options(found, ", ".join(choice.options))
    column = choice.options or "options"
    given = value_of(record, column)
    if isinstance(given, str):
        return question, lettered_lines(given, column)
    return question, _options(given, column)


def _options(given: Any, column: str) -> list[str]:
    if not isinstance(given, list):
        raise BadRow(f"{column}: must be a list of options, not {type(given).__name__}")
    if bad := [
        option for option in given if isinstance(option, bool) or not isinstance(option, (str, int, float))
    ]:
        raise BadRow(f"{column}: an option must be text or a number, not {bad[0]!r}")
    return without_letters([str(option) for option in given])


def _gold(label: Any, options: list[str], choice: Choice) -> str | None:
    """The letter of the right option; None where there is no label."""
    if label is None or label == "":
        return None
    if isinstance(label, list):
        if len(label) > 1:
            raise _SeveralError(label)
        return _gold(label[0] if label else None, options, choice)
    letters = ascii_uppercase[: len(options)]
    if choice.label_is == "letter":
        found = _BETWEEN.sub("", label) if isinstance(label, str) and len(label) != 1 else str(label)
        if not found or not set(found) <= set(letters):
            raise BadRow(f"{choice.label}: {label!r} is not among the options {letters[0]} to {letters[-1]}")
        if len(found) > 1:
            raise _SeveralError(found)
        return found
    return letters[_position(label, options, choice)]


def _position(label: Any, options: list[str], choice: Choice) -> int:
    """The right option's place, from 0."""
    if choice.label_is == "text":
        places = [i for i, option in enumerate(options) if option == str(label)]
        if len(places) != 1:
            raise BadRow(
                f"{choice.label}: {str(label)[:40]!r} is the text of {len(places)} options, not of one"
            )
        return places[0]
    whole = isinstance(label, int) and not isinstance(label, bool)
    if not whole and not (isinstance(label, str) and label.strip().isdecimal()):
        raise BadRow(f"{choice.label}: must be a whole number, not {label!r}")
    place = int(label) - (choice.label_is == "number")
    if not 0 <= place < len(options):
        raise BadRow(f"{choice.label}: {choice.label_is} {label} is none of the {len(options)} options")
    return place
