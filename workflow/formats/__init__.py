"""Data formats: each turns one record of a source into rows of the one normal form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from workflow.errors import BuildError
from workflow.formats import alpaca, columns, conversations, gsm8k, history, multiple_choice, round1, text
from workflow.formats.row import BadRow, Dropped, Row
from workflow.formats.steps import Steps
from workflow.patterns import compile_pattern
from workflow.recipe.formats import (
    AlpacaSource,
    ChatHistorySource,
    ColumnsSource,
    Gsm8kSource,
    MessagesSource,
    MultipleChoiceSource,
    PromptResponseSource,
    Round1Source,
    ShareGptSource,
    TextSource,
)
from workflow.recipe.source import SourceFile

__all__ = ["BadRow", "Dropped", "Row", "reader"]

Read = Callable[[Any], Iterator[Row | Dropped]]

_READERS: dict[type[SourceFile], Callable[..., Iterator[Row | Dropped]]] = {
    AlpacaSource: alpaca.rows,
    ChatHistorySource: history.rows,
    ColumnsSource: columns.rows,
    Gsm8kSource: gsm8k.rows,
    MessagesSource: conversations.rows,
    MultipleChoiceSource: multiple_choice.rows,
    PromptResponseSource: history.pairs,
    Round1Source: round1.rows,
    ShareGptSource: conversations.rows,
    TextSource: text.rows,
}


def reader(source: SourceFile) -> Read:
    """The function that turns one record of `source` into its rows, or the reason why one is left out.

    It raises BadRow for a record that is not what its format promises.

    Raises:
        BuildError: Its pattern is not RE2.
    """
    if isinstance(source, AlpacaSource) and source.parse:
        try:
            compile_pattern(source.parse.pattern)
        except ValueError as error:
            raise BuildError(f"{source.path}: parse.pattern: {error}") from None
    read = partial(_READERS[type(source)], source=source)
    steps = Steps.of(source)
    return read if steps.nothing else partial(steps.rows, read=read)
