"""Alpaca rows: instruction, input, output; the prompt's fields can be parsed out of a column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.formats.history import rounds
from workflow.formats.options import lettered_lines
from workflow.formats.record import text_of
from workflow.formats.row import BadRow, Row, conversation
from workflow.patterns import compile_pattern, named_groups
from workflow.recipe.formats import AlpacaSource, Parse


def rows(record: Any, source: AlpacaSource) -> Iterator[Row]:
    """One row per record; with a history it is a conversation.

    Raises:
        BadRow: A field is missing, or the column to parse does not match the pattern, or the other
            column has text that would be lost.
    """
    instruction, given = text_of(record, "instruction"), text_of(record, "input", "")
    output = text_of(record, "output")
    if source.parse:
        prompt, rendered = _parsed_prompt(record, instruction, given, source.parse)
        yield Row(prompt=prompt, target={"output": output}, gold=[output], rendered=rendered)
    elif source.history_column:
        question = f"{instruction}\n{given}" if instruction and given else instruction or given
        yield conversation(rounds(record, source.history_column, question, output))
    else:
        prompt = {"instruction": instruction, "input": given}
        yield Row(prompt=prompt, target={"output": output}, gold=[output])


def _parsed_prompt(record: Any, instruction: str, given: str, parse: Parse) -> tuple[dict[str, Any], str]:
    rendered = text_of(record, parse.field)
    for column, text in (("instruction", instruction), ("input", given)):
        if text and column != parse.field:
            raise BadRow(f"{column}: has text, but only {parse.field} is parsed: it would be lost")
    return _parsed(rendered, parse), rendered


def _parsed(text: str, parse: Parse) -> dict[str, Any]:
    match = compile_pattern(parse.pattern).fullmatch(text)
    if match is None:
        raise BadRow(f"{parse.field}: does not match dataset...parse.pattern; it begins {text[:40]!r}")
    names = named_groups(parse.pattern)
    fields: dict[str, Any] = {name: match.group(name) or "" for name in names}  # "": took no part
    if "options" in fields:
        fields["options"] = lettered_lines(fields["options"], parse.field, strict=True)
    return fields
