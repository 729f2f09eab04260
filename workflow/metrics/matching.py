"""Metrics of short answers: the same text, the same number, the words in common."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from decimal import Decimal
from functools import lru_cache

from workflow.metrics.metric import Chosen, Compared
from workflow.words import WHOLE, kind_of

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"(?:(?<![\w.])[-+−])?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")
_SQUAD = "SQuAD's normal form (lower case, no punctuation, no articles)"


class ExactMatch(Compared):
    """Whether the texts are the same in SQuAD's normal form."""

    def __init__(self, chosen: Chosen):
        """Compare as `chosen` says."""
        super().__init__("exact_match", _SQUAD, chosen.references)

    def compare(self, reference: str, text: str) -> float:
        """1 or 0."""
        return float(normal(reference) == normal(text))


class F1(Compared):
    """Harmonic mean of precision and recall of words (Rajpurkar et al. 2016, arXiv:1606.05250, 6.1)."""

    def __init__(self, chosen: Chosen):
        """Compare as `chosen` says."""
        words = "words by character where a script sets no spaces"
        super().__init__("f1", f"{_SQUAD}; {words}", chosen.references)

    def compare(self, reference: str, text: str) -> float:
        """F1; two texts without words are the same, as in SQuAD 2.0."""
        wanted, given = _words(reference), _words(text)
        if not wanted or not given:
            return float(wanted == given)
        shared = (Counter(wanted) & Counter(given)).total()
        return 2 * shared / (len(wanted) + len(given))


class NumericMatch(Compared):
    """Whether the last number of both texts is the same: 1,234.50 is 1234.5."""

    def __init__(self, chosen: Chosen):
        """Compare as `chosen` says."""
        super().__init__("numeric_match", "last number of the text, compared exactly", chosen.references)

    def compare(self, reference: str, text: str) -> float:
        """1 or 0; a text without a number matches nothing."""
        wanted = last_number(reference)
        return float(wanted is not None and wanted == last_number(text))


@lru_cache(1 << 10)
def normal(text: str) -> str:
    """SQuAD's normal form of an answer; punctuation is that of all scripts, as in MLQA (arXiv:1910.07475)."""
    kept = "".join(c for c in text.lower() if not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", kept).split())


@lru_cache(1 << 14)
def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _words(text: str) -> list[str]:
    return "".join(f" {c} " if kind_of(c) == WHOLE else c for c in normal(text)).split()


def last_number(text: str) -> Decimal | None:
    """The last decimal number in a text; a sign counts where no word or number stands before it."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None
