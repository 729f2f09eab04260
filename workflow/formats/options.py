"""Options of a question, with or without letters in front."""

from __future__ import annotations

import re

from workflow.formats.row import BadRow

_LETTER = re.compile(r"[(（]([A-Z])[)）][.．:：、]?\s*|([A-Z])[.．:：、)）]\s*")
"""`(A) x`, `A. x`, `A) x`, `A、x`; never `A dog`."""
_STRICT = re.compile(r"([A-G])\. ()")


def without_letters(options: list[str]) -> list[str]:
    """The options without `A. `, `B. `, ... if each has its own letter in front, else as they are."""
    found = [_LETTER.match(option) for option in options]
    if all(match and _letter(match) == chr(ord("A") + i) for i, match in enumerate(found)):
        return [option[match.end() :] for option, match in zip(options, found, strict=True) if match]
    return options


def _letter(match: re.Match[str]) -> str:
    return match[1] or match[2]


def lettered_lines(text: str, column: str, strict: bool = False) -> list[str]:
    """Take the letters off the lines; a line without the next letter continues the option before it.

    Args:
        text: One option a line, `A. x`; a last line end is no option.
        column: Where it is from, for the message.
        strict: Only `A. ` is a letter, up to G, so that nothing of the text is lost.

    Raises:
        BadRow: The text does not begin with the letter A.
    """
    pattern = _STRICT if strict else _LETTER
    options: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        match = pattern.match(line)
        if match and _letter(match) == chr(ord("A") + len(options)):
            options.append(line[match.end() :])
        elif options:
            options[-1] += f"\n{line}"
        else:
            raise BadRow(f"{column}: the options do not begin with `A. ` but with {line[:20]!r}")
    return options
