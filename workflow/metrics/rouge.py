"""ROUGE (Lin 2004) of generated texts: F1 by Google's package rouge-score, with words of any script.

On plain English the words are those of rouge-score itself; elsewhere letters keep their accents, and Chinese,
Japanese and Thai are compared character by character (`workflow.words`). `rougeLsum` divides texts into
sentences at line ends only.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

from workflow.metrics.metric import Chosen, Compared
from workflow.words import words

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
"""Metrics: shared words, shared pairs of words, longest common subsequence, the same sentence by sentence."""


class Rouge(Compared):
    """One of these metrics."""

    def __init__(self, name: str, chosen: Chosen):
        """Take it from rouge-score; `chosen.stem`: compare English words by their stems (Porter 1980)."""
        from rouge_score import rouge_scorer

        words = f"stem:{'yes' if chosen.stem else 'no'}|words:letters and digits, by character where unspaced"
        signature = f"F1|{words}|rouge-score:{version('rouge-score')}"
        super().__init__(name, signature, chosen.references)
        self._scorer: Any = rouge_scorer.RougeScorer([name], tokenizer=_tokenizer(chosen.stem))

    def compare(self, reference: str, text: str) -> float:
        """F1; a text without words has 0."""
        return float(self._scorer.score(reference, text)[self.name].fmeasure)


@lru_cache(2)
def _tokenizer(stem: bool) -> _Words:
    return _Words(stem)


class _Words:
    """What rouge-score calls a tokenizer; it remembers some texts, which several metrics ask about."""

    def __init__(self, stem: bool):
        from nltk.stem.porter import PorterStemmer

        self.stemmer: Any = PorterStemmer() if stem else None
        self._stemmed = lru_cache(1 << 16)(self._stem)
        self.tokenize = lru_cache(64)(self._tokenize)

    def _tokenize(self, text: str) -> list[str]:
        """The words of a text in lower case; as in rouge-score, stems of those longer than three letters."""
        found = words(text.lower())
        return found if self.stemmer is None else [self._stemmed(word) for word in found]

    def _stem(self, word: str) -> str:
        return str(self.stemmer.stem(word)) if len(word) > 3 and word.isascii() else word
