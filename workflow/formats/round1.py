"""Datawhale's logic rows: one problem a line, several single-choice questions each (tutorials.md 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from workflow.formats.record import text_of
from workflow.formats.row import BadRow, Row
from workflow.recipe.formats import Round1Source
from workflow.store.address import address_of

LETTERS = "ABCDEFG"
"""Letters of up to seven options (the contest's data have at most five)."""


def rows(record: Any, source: Round1Source) -> Iterator[Row]:
    """One row per question of a problem, with ids `{problem id}#{position}`.

    A problem without an id is known by its digest, so that a split keeps its questions together.

    Raises:
        BadRow: A field is missing, or an answer is not among its options.
    """
    problem, name = text_of(record, "problem"), text_of(record, "id", "")
    questions = record.get("questions")
    if not isinstance(questions, list) or not questions:
        raise BadRow("questions: must be a list with at least one question")
    found = [_row(question, problem, name, index) for index, question in enumerate(questions)]
    group = name or address_of([row.json() for row in found])  # of what is used: other columns may change
    yield from (replace(row, group=group) for row in found)


def _row(question: Any, problem: str, name: str, index: int) -> Row:
    place = f"questions[{index}]"
    try:
        prompt = {"problem": problem, "question": text_of(question, "question")}
        options = _options(question.get("options"))
        gold = _gold(question.get("answer"), options)
        reasoning = text_of(question, "reasoning", "")
    except BadRow as error:
        raise BadRow(f"{place}.{error}") from None
    target = {k: v for k, v in (("answer", gold), ("reasoning", reasoning)) if v}
    return Row(
        prompt={**prompt, "options": options},
        target=target,
        gold=[gold] if gold else [],
        id=f"{name}#{index}" if name else "",
        index=index,
    )


def _options(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(option, str) for option in value):
        raise BadRow("options: must be a list of texts")
    if not 2 <= len(value) <= len(LETTERS):
        raise BadRow(f"options: there must be 2 to {len(LETTERS)}, not {len(value)}")
    return value


def _gold(value: Any, options: list[str]) -> str | None:
    letters = LETTERS[: len(options)]
    if value is None:
        return None
    if not isinstance(value, str) or len(value) != 1 or value not in letters:
        raise BadRow(f"answer: {value!r} is not among the options {letters[0]} to {letters[-1]}")
    return value
