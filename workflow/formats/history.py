"""A question, its answer, and the rounds before it: prompt, response, history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.record import at, text_of
from workflow.formats.row import BadRow, Row, Turn, conversation
from workflow.recipe.formats import ChatHistorySource, PromptResponseSource


def rows(record: Any, source: ChatHistorySource) -> Iterator[Row]:
    """One conversation per record.

    Raises:
        BadRow: A field is missing or no text, or the history is no list of pairs.
    """
    question, answer = text_of(record, source.prompt_column), text_of(record, source.response_column)
    yield conversation(rounds(record, source.history_column, question, answer))


def pairs(record: Any, source: PromptResponseSource) -> Iterator[Row]:
    """One row per record, without any history.

    Raises:
        BadRow: A field is missing or no text.
    """
    question, answer = text_of(record, source.prompt_column), text_of(record, source.response_column)
    yield Row(prompt={"prompt": question}, target={"response": answer}, gold=[answer])


def rounds(record: Any, column: str, question: str, answer: str) -> list[Turn]:
    """The rounds in `column` and the last one as turns."""
    found = at(record, column) or []
    if not isinstance(found, list):
        raise BadRow(f"{column}: must be a list of [question, answer], not {type(found).__name__}")
    turns: list[Turn] = []
    for i, pair in enumerate([*found, (question, answer)]):
        if not isinstance(pair, (list, tuple)) or [type(text) for text in pair] != [str, str]:
            raise BadRow(f"{column}[{i}]: must be two texts, [question, answer]")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return turns
