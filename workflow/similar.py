"""Which texts are most like another: BM25 over words (Robertson & Zaragoza 2009, section 3).

With Lucene's inverse document frequency, which is never negative: ln(1 + (N - n + 0.5) / (n + 0.5)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workflow.words import grams

K1, B = 1.2, 0.75


class Bm25:
    """An index of texts; memory is about 20 bytes for each different word of each text."""

    def __init__(self, texts: Sequence[str]):
        """Index texts; their order is that of `scores`."""
        self.count = len(texts)
        words, of = grams(texts, 1)
        self.terms, term = np.unique(words, return_inverse=True)
        pairs, often = np.unique(term * max(1, self.count) + of, return_counts=True)
        owner, self._texts = np.divmod(pairs, max(1, self.count))
        self._begins = np.searchsorted(owner, np.arange(len(self.terms) + 1))
        lengths = np.bincount(of, minlength=self.count)
        long = 1 - B + B * lengths / max(lengths.mean(), 1e-9) if self.count else lengths
        holding = np.diff(self._begins)
        rare = np.log(1 + (self.count - holding + 0.5) / (holding + 0.5))
        self._weights = rare[owner] * often * (K1 + 1) / (often + K1 * long[self._texts])

    def scores(self, text: str) -> NDArray[np.float64]:
        """How much each text is like `text`; a word that it has twice counts once.

        Rounded, so that texts which are equally like it are equal on any processor.
        """
        found = np.zeros(self.count)
        wanted = np.unique(grams([text], 1)[0])
        places = np.searchsorted(self.terms, wanted)
        for place, word in zip(places.tolist(), wanted, strict=True):
            if place < len(self.terms) and self.terms[place] == word:
                span = slice(self._begins[place], self._begins[place + 1])
                found[self._texts[span]] += self._weights[span]
        return np.round(found, 9)
