"""What a metric of texts is: one value per text, and where the field has one a figure for a whole corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workflow.results import AskedRow


@dataclass(frozen=True)
class Chosen:
    """What the recipe says about metrics, beside their names."""

    stem: bool = True
    tokenize: str = "13a"
    references: str = "best"  # or mean


class Metric:
    """One metric; values are from 0 to 1, and higher is better."""

    name: str
    signature: str
    """What was computed, by which version of what: without it a figure cannot be compared."""
    needs_gold = True
    width = 0
    """Statistics per text; with any, the figure of a system is `corpus` of their sums, else a mean."""

    def score(self, row: AskedRow, text: str) -> float:
        """What one answer to a row is worth."""
        raise NotImplementedError

    def measure(self, row: AskedRow, text: str) -> tuple[float, Sequence[float]]:
        """`score`, and the statistics of the text."""
        return self.score(row, text), ()

    def corpus(self, sums: Sequence[float]) -> float:
        """The figure of many texts, from the sums of their statistics."""
        raise NotImplementedError


class Compared(Metric):
    """A metric of a text and one reference; the best of several counts, or their mean."""

    def __init__(self, name: str, signature: str, references: str):
        """Name it; `references` is best or mean."""
        self.name, self.references = name, references
        self.signature = f"{signature}; {references} of several references"

    def compare(self, reference: str, text: str) -> float:
        """What a text is worth against one reference."""
        raise NotImplementedError

    def score(self, row: AskedRow, text: str) -> float:
        """What one answer to a row is worth."""
        found = [self.compare(reference, text) for reference in row.gold]
        return max(found) if self.references == "best" else sum(found) / len(found)
