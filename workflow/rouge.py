"""ROUGE (Lin 2004) of generated texts: F1 by Google's package rouge-score, with words of any script.

On plain English the words are those of rouge-score itself; elsewhere letters keep their accents, and Chinese,
Japanese and Thai are compared character by character (`workflow.words`). `rougeLsum` divides texts into
sentences at line ends only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workflow.words import words

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
"""Metrics: shared words, shared pairs of words, longest common subsequence, the same sentence by sentence."""


class Rouge:
    """Some of these metrics."""

    def __init__(self, metrics: Sequence[str], stem: bool):
        """Take them from rouge-score.

        Args:
            metrics: Names out of `ROUGE`.
            stem: Whether English words are compared by their stems (Porter 1980).
        """
        from rouge_score import rouge_scorer

        self.metrics = tuple(metrics)
        self.scorer: Any = rouge_scorer.RougeScorer(list(metrics), tokenizer=_Words(stem))

    def f1(self, references: Sequence[str], text: str) -> list[float]:
        """F1 of each metric, 0 to 1, against the reference that is best for it; an empty text has 0."""
        found = self.scorer.score_multi(references, text)
        return [float(found[metric].fmeasure) for metric in self.metrics]


class _Words:
    """What rouge-score calls a tokenizer."""

    def __init__(self, stem: bool):
        from nltk.stem.porter import PorterStemmer

        self.stemmer: Any = PorterStemmer() if stem else None

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in lower case; as in rouge-score, stems of those longer than three letters."""
        found = words(text.lower())
        if self.stemmer is None:
            return found
        return [self.stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in found]
