"""What the scores say, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow.products.scores import TESTS
from workflow.report.inputs import Inputs
from workflow.results import SCORES, Scores
from workflow.schemas import check
from workflow.show import table
from workflow.store.files import read_json

CHANCE = 0.05
"""p value from which a gain is said to be possibly chance."""


@dataclass(frozen=True)
class Gain:
    """What one step brought: accuracy before and after, 0 to 1, and McNemar's p."""

    step: str
    before: float
    after: float
    p: float

    @property
    def points(self) -> str:
        """The difference in percentage points, with its sign: of the figures as shown, so that it adds up."""
        text = f"{float(f'{100 * self.after:.1f}') - float(f'{100 * self.before:.1f}'):+.1f}"
        return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")

    @property
    def doubtful(self) -> bool:
        """Whether so large a difference may well be chance."""
        return self.p >= CHANCE


@dataclass(frozen=True)
class Verdict:
    """One sentence, and the gains that it speaks of."""

    sentence: str
    gains: list[Gain]


def read_scores(inputs: Inputs) -> Scores | None:
    """The scores, where the recipe has them.

    Raises:
        BuildError: They are missing or damaged.
    """
    if "scores" not in inputs:
        return None
    path = inputs.folders["scores"] / SCORES
    return Scores.model_validate(check("scores", read_json(path), path))


def notes(scores: Scores | None) -> list[str]:
    """What stands under the table in a terminal: the baseline, rows left out, the tests in words."""
    return table(scores).partition("\n\n")[2].splitlines() if scores else []


def verdict(scores: Scores | None, recipe: dict[str, Any]) -> Verdict:
    """What tuning and voting brought; the final accuracy where neither can be told."""
    if scores is None:
        return Verdict("Not scored.", [])
    if not scores.systems:
        return Verdict(f"Not scored: none of the {scores.rows} test rows has a gold answer.", [])
    steps = {"tuning": "greedy_vs_base"} if recipe.get("tuning") else {}
    steps |= {"voting": "voted_vs_single"} if scores.draws > 1 else {}
    gains = [_gain(scores, step, test) for step, test in steps.items() if test in scores.tests]
    if gains:
        words = ", ".join(f"{gain.step} {gain.points} points" for gain in gains)
        return Verdict(words[0].upper() + words[1:] + ".", gains)
    best = scores.systems.get("voted") or next(iter(scores.systems.values()))
    return Verdict(f"{100 * best.accuracy:.1f} % of {scores.scored} test rows are answered right.", [])


def _gain(scores: Scores, step: str, test: str) -> Gain:
    after, before = TESTS[test]
    return Gain(step, scores.systems[before].accuracy, scores.systems[after].accuracy, scores.tests[test].p)
