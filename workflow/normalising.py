"""Normal forms of short answers, so that those which say the same are the same vote."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")
_SPACE = re.compile(r"\s+")
_KEPT = frozenset("%‰#@-−")
"""Punctuation that says something even at the end of an answer: 50%, C#, -5."""


@lru_cache(1 << 14)
def normalised(text: str, how: str) -> str:
    """The normal form of an answer; empty where it has none.

    Args:
        text: The answer as it was read.
        how: `none`: without white space around it; `text`: see `plain`; `number`: see `number`.
    """
    if how == "text":
        return plain(text)
    return number(text) if how == "number" else text.strip()


def plain(text: str) -> str:
    """Unicode's compatible form (NFKC), case folded, white space single, punctuation at both ends left out.

    Inside, punctuation stays: 1.5 is not 15.
    """
    for _ in range(2):  # folding may make what is not composed, and composing what is not folded
        text = unicodedata.normalize("NFKC", text.casefold())
    text = _SPACE.sub(" ", text)
    begin, end = 0, len(text)
    while begin < end and _is_edge(text[begin]):
        begin += 1
    while end > begin and _is_edge(text[end - 1]):
        end -= 1
    return text[begin:end]


def _is_edge(character: str) -> bool:
    return character == " " or (character not in _KEPT and unicodedata.category(character).startswith("P"))


def number(text: str) -> str:
    """A decimal number without commas, sign of a currency and zeros that say nothing; else empty.

    `$1,000.0`, `1000.` and `+1000` are `1000`; a word beside it (`5 apples`) or a fraction is no number.
    """
    text = _SPACE.sub("", unicodedata.normalize("NFKC", text)).replace("−", "-").removesuffix(".")
    sign = text[:1] if text[:1] in ("-", "+") else ""
    rest = text[len(sign) :]
    if rest and unicodedata.category(rest[0]) == "Sc":
        rest = rest[1:]
    if not _NUMBER.fullmatch(sign + rest):
        return ""
    found = format(Decimal((sign + rest).replace(",", "")), "f")
    found = found.rstrip("0").rstrip(".") if "." in found else found
    return "0" if found == "-0" else found
