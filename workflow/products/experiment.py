"""experiment: arms compared item by item, and a page that says what that proves and what it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from workflow.experiment_nodes import ASKED, LEARNED, SCORES, TRAINING
from workflow.pairing import OF_A_CORPUS, Compared, Paired, compare
from workflow.report.conclusion import Scale, chance, conclude, label
from workflow.report.figures import FIGURES, write_figures
from workflow.report.inputs import Inputs
from workflow.report.page import render
from workflow.report.plots import intervals, lines
from workflow.report.training import FACTS, LOSS
from workflow.results import ITEMS
from workflow.review import KEY, Preferences, judged, wilson
from workflow.significance import mcnemar
from workflow.store.build import Job
from workflow.store.files import read_json
from workflow.store.store import read_manifest

PAGE, RESULT = "report.html", "experiment.json"
Curves = dict[str, list[tuple[float, float]]]


def make(job: Job) -> dict[str, Any]:
    """Write `report.html`, its pictures as files in `figures/`, and what they show in `experiment.json`.

    Returns:
        Counts: arms, rows that are paired, figures compared; judged rows, where people judged.

    Raises:
        BuildError: Arms have no scored row in common, or the filled-in sheet is of other answers.
    """
    slice, arms = job.slice, job.slice["order"]
    files = {arm: job.inputs[SCORES + arm] / ITEMS for arm in arms}
    paired = compare(files, slice["metrics"], slice["weigh"], slice["resamples"], slice["seed"])
    facts = {
        arm: read_json(job.inputs[TRAINING + arm] / FACTS) for arm in arms if TRAINING + arm in job.inputs
    }
    review = _review(job)
    inputs = Inputs.of(job)
    tables = [Table(one, Scale.of(one), _gains(one)) for one in paired.headlines]
    losses = _losses(inputs, slice)
    pictures = {f"difference-{table.compared.metric}": table.picture for table in tables}
    pictures |= {f"loss-{name}": picture for name, _, picture in losses}
    write_figures(pictures, job.out / FIGURES)
    page = render(
        "experiment.html.jinja",
        slice=slice,
        together=_together,
        labels={arm: label(slice, arm) for arm in arms},
        conclusion=conclude(slice, paired, facts),
        tables=tables,
        more=[one for one in paired.compared if one not in paired.headlines],
        scale=Scale.of,
        OF_A_CORPUS=OF_A_CORPUS,
        chance=chance,
        unpaired={arm: rows for arm, rows in paired.unpaired.items() if rows},
        losses=losses,
        trainings=_trainings(inputs, slice),
        amounts=list(_amounts(inputs, slice, facts)),
        review=review,
        inputs=inputs,
    )
    (job.out / PAGE).write_bytes(page.encode("utf-8", "replace"))
    found = {
        "question": slice["question"],
        "arms": slice["arms"],
        **_figures(paired),
        "review": review and asdict(review),
    }
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (job.out / RESULT).write_bytes(f"{text}\n".encode("utf-8", "replace"))
    judged_rows = {"judged": review.decided + review.ties} if review else {}
    return {
        "arms": len(arms),
        "rows": paired.compared[0].rows,
        "figures": len(paired.compared),
        **judged_rows,
    }


def _figures(paired: Paired) -> dict[str, Any]:
    return {"compared": [asdict(one) for one in paired.compared], "unpaired": paired.unpaired}


def _together(differs: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Differences, with all places in which the same one acts."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in differs:
        found.setdefault((one["field"], one["old"], one["new"]), []).append(one["where"])
    return [
        {"field": f, "old": old, "new": new, "where": where} for (f, old, new), where in sorted(found.items())
    ]


@dataclass(frozen=True)
class Table:
    """One metric of the page: its figures, how they are written, and a picture of the differences."""

    compared: Compared
    scale: Scale
    picture: str


def _gains(compared: Compared) -> str:
    scale = Scale.of(compared)
    rows = [
        (arm, scale.factor * gain.difference, scale.factor * gain.low, scale.factor * gain.high)
        for arm, gain in compared.gains.items()
    ]
    return intervals(rows, f"difference in {compared.metric}{f', {scale.unit}' if scale.unit else ''}")


def _losses(inputs: Inputs, slice: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, heading and picture of the loss of every training, over steps and over tokens."""
    steps, tokens, held_out = {}, {}, {}
    for names, role in _trainings(inputs, slice).items():
        logged = list(inputs.records(role, LOSS))
        steps[names] = [(line["step"], line["loss"]) for line in logged if "loss" in line]
        tokens[names] = [(line["tokens"], line["loss"]) for line in logged if "loss" in line]
        held_out[names] = [(line["tokens"], line["eval_loss"]) for line in logged if "eval_loss" in line]
    pictures = [
        ("over-steps", "Training loss over optimizer steps", _curves(steps, "optimizer steps")),
        ("over-tokens", "Training loss over tokens seen", _curves(tokens, "tokens")),
        ("on-held-out-rows", "Loss on held-out rows over tokens seen", _curves(held_out, "tokens")),
    ]
    return [(name, heading, picture) for name, heading, picture in pictures if picture]


def _curves(series: Curves, x: str) -> str:
    return lines({name: curve for name, curve in series.items() if curve}, x, "loss")


def _trainings(inputs: Inputs, slice: dict[str, Any]) -> dict[str, str]:
    """Names of arms -> role of the training that they share."""
    shared: dict[str, list[str]] = {}
    for arm in slice["order"]:
        if TRAINING + arm in inputs:
            shared.setdefault(str(inputs.folders[TRAINING + arm]), []).append(arm)
    return {" = ".join(arms): TRAINING + arms[0] for arms in shared.values()}


AMOUNTS = {
    "optimizer steps": (TRAINING, "steps"),
    "tokens seen in training": (TRAINING, "tokens"),
    "training rows": (LEARNED, "rows"),
    "training rows left out as too long": (LEARNED, "dropped"),
    "training rows truncated": (LEARNED, "truncated"),
    "training tokens cut off": (LEARNED, "cut_tokens"),
    "test rows": (ASKED, "rows"),
    "test rows truncated": (ASKED, "truncated"),
}
"""What the page counts of each arm -> role of the input, and name of the count."""


def _amounts(
    inputs: Inputs, slice: dict[str, Any], facts: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, list[Any]]]:
    for name, (role, count) in AMOUNTS.items():
        of = [
            (facts.get(arm, {}) if role == TRAINING else inputs.counts(role + arm)) for arm in slice["order"]
        ]
        values = [counts.get(count) for counts in of]
        if any(value is not None for value in values):
            yield name, values


@dataclass(frozen=True)
class Judgement(Preferences):
    """What people preferred: the share of `arm` among decided lines, its interval, the sign test's p."""

    arm: str
    rate: float | None
    low: float | None
    high: float | None
    p: float
    alike: int


def _review(job: Job) -> Judgement | None:
    if "sheet" not in job.sources:
        return None
    found = judged(job.sources["sheet"], read_json(job.inputs["review"] / KEY))
    low, high = wilson(found.other, found.decided) if found.decided else (None, None)
    return Judgement(
        **vars(found),
        arm=job.slice["arm"],
        rate=found.other / found.decided if found.decided else None,
        low=low,
        high=high,
        p=mcnemar(found.other, found.one),  # of two outcomes, equally likely: the sign test
        alike=_alike(job),
    )


def _alike(job: Job) -> int:
    return int(read_manifest(job.inputs["review"]).counts["alike"])
