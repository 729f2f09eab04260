"""How long the rows of each split are, for the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from workflow.report.inputs import Inputs
from workflow.report.plots import bin_width, histogram

SPLITS = {"shards_train": "training", "shards_test": "test"}


@dataclass(frozen=True)
class Lengths:
    """The rows of one split by their tokens; `limit` is None where it is not drawn."""

    split: str
    counts: Counter[int]
    limit: int | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.counts.total()

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.counts)

    @property
    def median(self) -> int:
        """The lower median."""
        return median_low(self.counts.elements())

    @property
    def width(self) -> int:
        """Tokens to a bar of the picture."""
        return bin_width(self.counts)

    @property
    def picture(self) -> str:
        """The histogram."""
        name = f"length of {self.split} rows, tokens"
        return histogram(self.counts, "tokens", limit=self.limit, title=name)


def lengths(inputs: Inputs, recipe: dict[str, Any]) -> list[Lengths]:
    """One for each split that has rows."""
    limit = recipe.get("prompt", {}).get("max_length")
    found = []
    for role, split in SPLITS.items():
        counts = inputs.lengths(role) if role in inputs else None
        if counts:
            near = isinstance(limit, int) and limit <= 2 * max(
                counts
            )  # else the rows would shrink to a corner
            found.append(Lengths(split, counts, limit if near else None))
    return found
