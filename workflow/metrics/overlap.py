"""BLEU and chrF by sacrebleu: of each text, and of a whole corpus from sums of the texts' statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workflow.errors import BuildError
from workflow.metrics.metric import Chosen, Metric
from workflow.results import AskedRow
from workflow.words import WHOLE, kind_of


class Sacre(Metric):
    """A metric of sacrebleu (Post 2018, arXiv:1804.08771).

    Several references are taken together, as the metric is defined; with `mean` each alone, averaged. The
    private methods are those that its own bootstrap is made of.
    """

    def __init__(self, name: str, metric: Any, references: str):
        """Take sacrebleu's `metric`."""
        self.name, self.references, self.metric = name, references, metric
        self.width = len(self._statistics("a", ["a"]))
        signature = str(metric.get_signature())  # which it knows once it was used
        self.signature = signature if references == "best" else f"{signature}; mean of several references"

    def _statistics(self, text: str, references: Sequence[str]) -> list[float]:
        [found] = self.metric._extract_corpus_statistics([text], [[reference] for reference in references])
        return [float(value) for value in found]

    def measure(self, row: AskedRow, text: str) -> tuple[float, Sequence[float]]:
        """Score and statistics; of several references alone the means."""
        if self.references == "best":
            found = self._statistics(text, row.gold)
            return self.of_text(found), found
        each = [self._statistics(text, [reference]) for reference in row.gold]
        means = [sum(column) / len(each) for column in zip(*each, strict=True)]
        return sum(map(self.of_text, each)) / len(each), means

    def score(self, row: AskedRow, text: str) -> float:
        """What one answer to a row is worth."""
        return self.measure(row, text)[0]

    def of_text(self, statistics: Sequence[float]) -> float:
        """The score of one text, from its statistics."""
        return self.corpus(statistics)

    def corpus(self, sums: Sequence[float]) -> float:
        """The score of all texts, as sacrebleu computes it."""
        return min(1.0, float(self.metric._compute_score_from_stats(list(sums)).score) / 100)


class Bleu(Sacre):
    """BLEU (Papineni et al. 2002), to fourgrams; of one text with effective order, as sacrebleu advises."""

    def __init__(self, chosen: Chosen):
        """Compare words as `chosen.tokenize` says."""
        from sacrebleu.metrics import BLEU

        self.spaced = chosen.tokenize in ("13a", "intl")
        self._single = BLEU(tokenize=chosen.tokenize, effective_order=True)
        super().__init__("bleu", BLEU(tokenize=chosen.tokenize), chosen.references)

    def measure(self, row: AskedRow, text: str) -> tuple[float, Sequence[float]]:
        """Score and statistics.

        Raises:
            BuildError: A reference is in a script without spaces, which the tokenizer takes for one word.
        """
        for reference in row.gold if self.spaced else ():
            if sum(kind_of(c) == WHOLE for c in reference) * 2 > len(reference):
                raise BuildError(
                    f"row {row.id!r}: scoring.tokenize divides texts at spaces, and {reference[:20]!r} "
                    "has none between words; say zh (Chinese) or char (Japanese, Thai, ...)"
                )
        return super().measure(row, text)

    def of_text(self, statistics: Sequence[float]) -> float:
        """The score of one text, from its statistics."""
        return min(1.0, float(self._single._compute_score_from_stats(list(statistics)).score) / 100)


class Chrf(Sacre):
    """chrF2 (Popović 2015): F of character n-grams, which knows no words."""

    def __init__(self, chosen: Chosen):
        """Compare as `chosen` says."""
        from sacrebleu.metrics import CHRF

        super().__init__("chrf", CHRF(), chosen.references)
