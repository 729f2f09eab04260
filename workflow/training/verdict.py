"""What follows from the losses on held-out rows: which weights are best, and whether to stop.

It is a function of the losses so far, which every checkpoint has in its log: a resumed training needs no
further state to stop and to choose as the uninterrupted one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.recipe.optimisation import Validation
from workflow.store.files import read_json

Losses = list[tuple[int, float]]
"""Step and validation loss of each evaluation, in order."""


def losses_in(history: list[dict[str, Any]]) -> Losses:
    """The evaluations in a log of transformers' Trainer."""
    return [(line["step"], line["eval_loss"]) for line in history if "eval_loss" in line]


def losses_of(checkpoint: Path) -> Losses:
    """The evaluations that a checkpoint knows of."""
    return losses_in(read_json(checkpoint / "trainer_state.json")["log_history"])


@dataclass(frozen=True)
class Verdict:
    """What follows from the losses so far."""

    best: int | None
    """Step of the lowest loss, the earliest of equal ones."""
    stop: bool
    """Whether early stopping says so."""


def verdict(losses: Losses, validation: Validation) -> Verdict:
    """Weigh the evaluations; an improvement is more than `min_delta` below the last improvement."""
    if not losses:
        return Verdict(None, False)
    best = min(losses, key=lambda found: (found[1], found[0]))[0]
    rule, lowest, waited = validation.early_stopping, float("inf"), 0
    for _, loss in losses:
        improved = loss < lowest - (rule.min_delta if rule else 0.0)
        waited = 0 if improved else waited + 1
        lowest = loss if improved else lowest
    return Verdict(best, rule is not None and waited >= rule.patience)
