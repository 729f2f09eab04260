"""What a word is, in scripts with and without spaces between words; and n-grams of words by the million.

A word is a run of letters and digits; where a script sets no spaces (Chinese, Japanese, Thai, ...) each
character is one. Everything else stands between words. So a text in two scripts needs no language named.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BETWEEN, LETTER, WHOLE = range(3)
"""Kinds of characters: between words, part of a word, a word by itself."""
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""How the Unicode names of letters begin whose script sets no spaces."""
_UNKNOWN = 255
_STEP, _GAP = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1342543DE82EF95)  # odd, so no bit is lost


@lru_cache(1 << 16)
def kind_of(character: str) -> int:
    """The kind of a character: letters, marks and digits make words."""
    if unicodedata.category(character)[0] not in "LMN":
        return BETWEEN
    return WHOLE if unicodedata.name(character, "").startswith(UNSPACED) else LETTER


def words(text: str) -> list[str]:
    """The words of a text."""
    spaced = []
    for character in text:
        kind = kind_of(character)
        spaced.append(f" {character} " if kind == WHOLE else character if kind == LETTER else " ")
    return "".join(spaced).split()


class _Kinds:
    """`kind_of` for arrays of code points; each is looked up once."""

    def __init__(self) -> None:
        self.table = np.full(0x110000, _UNKNOWN, np.uint8)

    def __call__(self, points: NDArray[np.uint32]) -> NDArray[np.uint8]:
        found = self.table[points]
        new = set(points[found == _UNKNOWN].tolist())
        for point in new:
            self.table[point] = kind_of(chr(point))
        return self.table[points] if new else found


_kinds = _Kinds()


def grams(texts: Sequence[str], n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The n-grams of words of some texts, after NFKC and case folding, as 64-bit digests.

    Two different ones share a digest by accident only: 1e7 of them hold one such pair 3 times in a million.
    None reaches from one text into the next.

    Returns:
        The digests in the order of the texts, and of each the number of its text.
    """
    block = "\0".join(text.replace("\0", " ") for text in texts)
    digests, of = _words(unicodedata.normalize("NFKC", block).casefold())
    count = max(0, len(digests) - n + 1)
    power, total = np.uint64(1), np.zeros(count, np.uint64)
    for k in range(n):
        total += digests[k : k + count] * power
        power = np.multiply(power, _GAP)
    within = of[:count] == of[len(of) - count :]
    return _mixed(total[within]), of[:count][within]


def _words(block: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A digest of each word, and the number of the text it is in; NUL ends a text."""
    points = np.frombuffer(block.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds(points)
    begins = kinds != BETWEEN
    begins[1:] &= (kinds[1:] == WHOLE) | (kinds[:-1] != LETTER)
    letters = np.flatnonzero(kinds)
    first = np.flatnonzero(begins[letters])
    if not len(first):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    place = np.arange(len(letters)) - np.repeat(first, np.diff(first, append=len(letters)))
    powers = np.cumprod(np.full(int(place.max()) + 1, _STEP))
    digests = np.add.reduceat(_mixed(points[letters].astype(np.uint64)) * powers[place], first)
    return _mixed(digests), np.cumsum(points == 0)[letters[first]]


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea & Flood 2014), a bijection that spreads every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
