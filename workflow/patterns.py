"""Regular expressions from recipes, by RE2: time is linear in the text, so none can hang a build."""

from __future__ import annotations

from functools import cache
from typing import Any

import re2

_UNANCHORED, _NOWHERE = re2._Anchor.UNANCHORED, (-1, -1)


@cache
def compile_pattern(pattern: str) -> Any:
    """Compile an RE2 pattern (https://github.com/google/re2/wiki/Syntax).

    Raises:
        ValueError: The pattern is not RE2 (look-around and back-references are not).
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"not a valid RE2 pattern: {reason}") from None


def check_pattern(pattern: str, groups: int) -> None:
    """Raise ValueError unless `pattern` compiles and has exactly `groups` groups."""
    found = compile_pattern(pattern).groups
    if found != groups:
        raise ValueError(f"the pattern needs exactly {groups} group(s) in parentheses, it has {found}")


def named_groups(pattern: str) -> list[str]:
    """Names of the pattern's groups in order of position."""
    index: dict[str, int] = compile_pattern(pattern).groupindex
    return sorted(index, key=index.__getitem__)


def first_group(regexp: Any, text: bytes, last: bool) -> bytes | None:
    """The first group of a pattern's first or last match, as `finditer` finds them; None: there is none.

    The very calls that re2's `finditer` makes, without an object for every match: half the time.
    """
    match, begin, end = regexp._regexp.Match, 0, len(text)
    found = None
    while (spans := match(_UNANCHORED, text, begin, end))[0] != _NOWHERE:
        found = spans[1]
        if not last or begin == end:
            break
        begin = spans[0][1] if spans[0][1] > begin else begin + 1  # behind an empty match
    return None if found is None or found == _NOWHERE else text[found[0] : found[1]]
