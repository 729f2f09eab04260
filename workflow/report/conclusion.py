"""What an experiment proves and what it cannot, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflow.factors import TRAINED
from workflow.pairing import Compared, Gain, Paired, fewest_rows
from workflow.recipe.experiment import BASELINE

FEW = 30
"""Fewer items than these make bootstrap intervals themselves too narrow."""
CHANGES_TOKENS = ("dataset", "prompt", "gate", "model.base")
"""Factors that change which tokens a loss is over."""


@dataclass(frozen=True)
class Scale:
    """How a metric is written: shares in per cent and points, others as they are."""

    factor: float
    unit: str

    @classmethod
    def of(cls, compared: Compared) -> Scale:
        """Per cent where no figure is above 1."""
        largest = max(
            abs(bound) for figure in compared.figures.values() for bound in (figure.low, figure.high)
        )
        return cls(100.0, "points") if largest <= 1 else cls(1.0, "")

    def value(self, value: float) -> str:
        """A figure: `93.2`."""
        return f"{self.factor * value:.1f}" if self.factor > 1 else f"{value:.4g}"

    def difference(self, value: float) -> str:
        """A difference with its sign: `+2.1`, `−0.4`."""
        text = f"{self.factor * value:+.1f}" if self.factor > 1 else f"{value:+.3g}"
        return text[1:] if float(text) == 0 else text.replace("-", "−")

    def gain(self, gain: Gain) -> str:
        """`+2.1 points (95 % interval +0.3 to +3.9)`."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.difference(gain.difference)}{unit} (95 % interval {self.interval(gain)})"

    def interval(self, gain: Gain) -> str:
        """The ends of the interval of a difference."""
        return f"{self.difference(gain.low)} to {self.difference(gain.high)}"


@dataclass(frozen=True)
class Conclusion:
    """The headline, what is proved, and what is not."""

    sentence: str
    proves: list[str]
    cannot: list[str]


def conclude(slice: Mapping[str, Any], paired: Paired, facts: Mapping[str, Mapping[str, Any]]) -> Conclusion:
    """Judge by the first metric.

    Args:
        slice: What was asked: arms in order with their differences, factors, whether it is a rehearsal.
        paired: The comparison.
        facts: Arm -> what training.json says of it; arms that train nothing are not in it.
    """
    first = paired.headlines[0]
    proves = ["The arms differ in the fields listed below and in nothing else that decides a score."]
    if slice["rehearsal"]:
        proves.append("All of it runs: data, training, answers, scores, this page.")
    else:
        proves += [_shown(first, arm, gain) for arm, gain in first.gains.items()]
    if len(paired.headlines) > 1 and not slice["rehearsal"]:
        proves.append(_of_the_others(paired))
    cannot = [
        *_rehearsed(slice),
        *_too_few(first),
        *_confounded(slice),
        *_once(facts),
        *_losses(slice, facts),
    ]
    return Conclusion(_sentence(slice, first), proves, cannot)


def _sentence(slice: Mapping[str, Any], first: Compared) -> str:
    if slice["rehearsal"]:
        return "A rehearsal: it runs, and proves nothing of the question."
    found = [
        f"{arm} {Scale.of(first).difference(gain.difference)}"
        for arm, gain in first.gains.items()
        if gain.shown
    ]
    if not found:
        return f"No difference in {first.metric} is shown."
    unit = Scale.of(first).unit
    return f"{first.metric} against the baseline: {', '.join(found)}{' ' if unit else ''}{unit}."


def chance(p: float) -> str:
    """`p = 0.0054`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.1 else f"p = {p:.2f}"


def _shown(compared: Compared, arm: str, gain: Gain) -> str:
    scale, corrected = Scale.of(compared), " after Holm's correction" if len(compared.gains) > 1 else ""
    what = f"{compared.metric} of {arm} less that of the baseline is {scale.gain(gain)}"
    if gain.shown:
        better = "better" if gain.difference > 0 else "worse"
        return f"{arm} is {better}: {what}, {chance(gain.corrected)}{corrected} ({gain.test})."
    return (
        f"Of {arm}, no difference is shown: {what}, {chance(gain.corrected)}{corrected} ({gain.test}). "
        "Anything in that interval fits these rows."
    )


def _of_the_others(paired: Paired) -> str:
    others = paired.headlines[1:]
    shown = [f"{one.metric} of {arm}" for one in others for arm, gain in one.gains.items() if gain.shown]
    said = f"a difference is shown in {', '.join(shown)}" if shown else "none shows a difference"
    names = ", ".join(one.metric for one in others)
    return f"Of the other metrics ({names}) {said}; of several, one may do so by chance."


def _rehearsed(slice: Mapping[str, Any]) -> Iterator[str]:
    if slice["rehearsal"]:
        yield "Anything about the question: in a rehearsal models are tiny and untrained, and rows are few."


def _too_few(compared: Compared) -> Iterator[str]:
    n, scale, tests = compared.problems, Scale.of(compared), len(compared.gains)
    items = f"{n:,} test item{'' if n == 1 else 's'}"
    reach = {arm: gain.detectable for arm, gain in compared.gains.items() if gain.detectable is not None}
    if reach:
        sizes = ", ".join(f"{scale.difference(size).lstrip('+')} ({arm})" for arm, size in reach.items())
        yield (
            f"A small difference: with {items}, only true differences in {compared.metric} of about {sizes} "
            f"{scale.unit} or more are found four times out of five. Not to find one proves nothing."
        )
    for arm in (arm for arm in compared.gains if arm not in reach):
        yield (
            f"That {arm} equals the baseline: its values are the same on all {items}, so up to about "
            f"{min(100.0, 300 / n):.0f} % of other items may still differ."
        )
    if any(gain.better is not None for gain in compared.gains.values()):
        least = fewest_rows(tests)
        yield f"Anything from less than {least} rows that differ to one side: so few do so by chance."
    if n < FEW:
        yield f"How sure the figures are: from {items} intervals come out too narrow; have {FEW} or more."


def _confounded(slice: Mapping[str, Any]) -> Iterator[str]:
    for arm in slice["order"]:
        fields = list(dict.fromkeys(difference["field"] for difference in slice["arms"][arm]["differs"]))
        if len(fields) > 1:
            names = ", ".join(fields)
            yield f"Which factor of {arm} makes a difference: {names} change together."


def _once(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if facts:
        yield (
            "What another seed of training would give: each arm was trained once, and intervals are about "
            "the choice of test rows alone. A matrix over training.seed would tell."
        )
    amounts = {(fact.get("tokens"), fact.get("steps")) for fact in facts.values()}
    if len(amounts) > 1:
        yield "An effect of the factors alone: the arms also saw different numbers of tokens or steps."


def _losses(slice: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    fields = sorted({
        difference["field"]
        for arm in slice["arms"].values()
        for difference in arm["differs"]
        if difference["where"] == TRAINED and difference["field"].startswith(CHANGES_TOKENS)
    })  # fmt: skip
    if fields and len(facts) > 1:
        names = ", ".join(fields)
        yield f"Anything by the height of the loss curves: by {names}, arms learn different tokens."


def label(slice: Mapping[str, Any], arm: str) -> str:
    """What the page calls an arm."""
    return f"{slice['arms'][arm]['is']} (baseline)" if arm == BASELINE else arm
