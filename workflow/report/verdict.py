"""What the scores say, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow.accuracy import TESTS
from workflow.measures import TextMetric
from workflow.report.inputs import Inputs
from workflow.results import SCORES, Scores
from workflow.schemas import check
from workflow.store.files import read_json
from workflow.text_scores import PAIRS

CHANCE = 0.05
"""p value from which a gain is said to be possibly chance."""


@dataclass(frozen=True)
class Gain:
    """What one step brought: a share before and after, 0 to 1, what of, and the test's p."""

    step: str
    before: float
    after: float
    p: float
    unit: str

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


def verdict(scores: Scores | None, recipe: dict[str, Any]) -> Verdict:
    """What tuning and voting brought; the final accuracy where neither can be told."""
    if scores is None:
        return Verdict("Not scored.", [])
    if not scores.systems and not scores.text_metrics:
        if scores.likelihood:
            likely, rows = scores.likelihood.systems["greedy"], scores.likelihood.rows
            return Verdict(f"Loss {likely.loss:.4f} over the known answers of {rows:,} test rows.", [])
        return Verdict(f"Not scored: none of the {scores.rows} test rows has a gold answer.", [])
    steps = {"tuning": "greedy_vs_base"} if recipe.get("tuning") else {}
    steps |= {"voting": "voted_vs_single"} if scores.draws > 1 else {}
    gains = [_gain(scores, step, test) for step, test in steps.items() if test in scores.tests]
    of_texts = [
        _text_gain(f"{step} ({metric})", found, test)
        for metric, found in scores.text_metrics.items()
        for step, test in steps.items()
        if test in found.tests
    ]
    if gains or of_texts:
        words = ", ".join(f"{gain.step} {gain.points} points" for gain in gains or of_texts[:1])
        return Verdict(words[0].upper() + words[1:] + ".", [*gains, *of_texts])
    if not scores.systems:
        metric, found = next(iter(scores.text_metrics.items()))
        own = found.systems["greedy"]
        how = "mean of" if found.of == "mean" else "all together, of"
        return Verdict(f"{metric} {100 * own.mean:.1f} %, {how} {own.n} test problems.", [])
    best = scores.systems.get("voted") or next(iter(scores.systems.values()))
    return Verdict(f"{100 * best.accuracy:.1f} % of {scores.scored} test rows are answered right.", [])


def _gain(scores: Scores, step: str, test: str) -> Gain:
    after, before = TESTS[test]
    accuracies = scores.systems[before].accuracy, scores.systems[after].accuracy
    return Gain(step, *accuracies, scores.tests[test].p, f"of {scores.scored:,} test rows right")


def _text_gain(step: str, found: TextMetric, test: str) -> Gain:
    after, before = (found.systems[name] for name in PAIRS[test])
    how = "mean of" if found.of == "mean" else "all together, of"
    return Gain(step, before.mean, after.mean, found.tests[test].p, f"{how} {after.n:,} test problems")
