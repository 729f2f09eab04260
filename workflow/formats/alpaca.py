"""Alpaca rows: instruction, input, output; the prompt's fields can be parsed out of a column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from workflow.formats.row import BadRow, Row, text_of
from workflow.patterns import compile_pattern, named_groups
from workflow.recipe.dataset import Parse

_LETTER = re.compile(r"^([A-G])\. (.*)$", re.DOTALL)


def rows(record: Any, parse: Parse | None = None) -> Iterator[Row]:
    """One row per record.

    Raises:
        BadRow: A field is missing, or the column to parse does not match the pattern, or the other
            column has text that would be lost.
    """
    instruction, given = text_of(record, "instruction"), text_of(record, "input", "")
    target = {"output": text_of(record, "output")}
    if parse is None:
        yield Row(prompt={"instruction": instruction, "input": given}, target=target)
        return
    rendered = text_of(record, parse.field)
    for column, text in (("instruction", instruction), ("input", given)):
        if text and column != parse.field:
            raise BadRow(f"{column}: has text, but only {parse.field} is parsed: it would be lost")
    yield Row(prompt=_parsed(rendered, parse), target=target, rendered=rendered)


def _parsed(text: str, parse: Parse) -> dict[str, Any]:
    match = compile_pattern(parse.pattern).fullmatch(text)
    if match is None:
        raise BadRow(f"{parse.field}: does not match dataset...parse.pattern; it begins {text[:40]!r}")
    names = named_groups(parse.pattern)
    fields: dict[str, Any] = {name: match.group(name) or "" for name in names}  # "": took no part
    if "options" in fields:
        fields["options"] = _options(fields["options"], parse.field)
    return fields


def _options(text: str, column: str) -> list[str]:
    """Take `A. `, `B. `, ... off the lines; a line without a letter continues the option before it."""
    options: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        match = _LETTER.match(line)
        if match and match[1] == chr(ord("A") + len(options)):
            options.append(match[2])
        elif options:
            options[-1] += f"\n{line}"
        else:
            raise BadRow(f"{column}: the options do not begin with `A. ` but with {line[:20]!r}")
    return options
