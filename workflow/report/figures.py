"""All pictures of a report by name: in the page, and as files of their own for `snakemake --report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from workflow.curves import Curves
from workflow.report.lengths import Lengths
from workflow.report.plots import as_file, intervals, lines
from workflow.report.training import Training
from workflow.results import Scores
from workflow.show import MODELS, SYSTEMS

FIGURES = "figures"
STEPS = "optimizer steps"


def figures(scores: Scores | None, training: Training | None, rows: Sequence[Lengths]) -> dict[str, str]:
    """Name -> `<svg>`, only of what there is; the names are those of rules/captions/figure.rst."""
    found = {
        **(_of_scores(scores) if scores else {}),
        **(_of_training(training) if training else {}),
        **{f"lengths-{split.split}": split.picture for split in rows},
    }
    return {name: picture for name, picture in found.items() if picture}


def write_figures(pictures: Mapping[str, str], folder: Path) -> None:
    """Write each as an SVG file."""
    folder.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        (folder / f"{name}.svg").write_text(as_file(picture), encoding="utf-8")


def _of_scores(scores: Scores) -> dict[str, str]:
    """Accuracies, the curve of votes, and means of texts, each with 95 % intervals."""
    found = {"accuracy": intervals(_accuracies(scores), "accuracy %")}
    for metric, measured in scores.text_metrics.items():
        rows = [
            (_label(scores, name), 100 * one.mean, 100 * one.low, 100 * one.high)
            for name in SYSTEMS
            if (one := measured.systems.get(name))
        ]
        found[metric] = intervals(rows, f"{metric} %")
    if scores.likelihood:
        models = [(MODELS[name], one) for name, one in scores.likelihood.systems.items()]
        rows = [(label, one.loss, one.low, one.high) for label, one in models]
        found["likelihood"] = intervals(rows, "loss, nats per token")
    if scores.curves:
        found |= _of_votes(scores.curves)
    return found


def _accuracies(scores: Scores) -> list[tuple[str, float, float, float]]:
    return [
        (_label(scores, name), 100 * one.accuracy, 100 * one.low, 100 * one.high)
        for name in SYSTEMS
        if (one := scores.systems.get(name))
    ]


def _label(scores: Scores, name: str) -> str:
    return SYSTEMS[name].format(draws=scores.draws)


def _of_votes(curves: Curves) -> dict[str, str]:
    """What the vote of k draws is worth, and what each voter adds to it."""
    name = "vote of k draws"
    points = {name: [(point.k, 100 * point.accuracy) for point in curves.points]}
    bands = {name: [(point.k, 100 * point.low, 100 * point.high) for point in curves.points]}
    gains = [
        (voter.name, 100 * voter.gain, 100 * voter.low, 100 * voter.high)
        for voter in curves.voters
        if voter.gain is not None and voter.low is not None and voter.high is not None
    ]
    several = len(curves.points) > 1
    return {
        "votes": lines(points, "draws that vote, k", "accuracy %", bands, title="maj@k") if several else "",
        "voters": intervals(gains, "points that the vote gains by a voter"),
    }


def _of_training(training: Training) -> dict[str, str]:
    """The curves over optimizer steps."""
    losses = {"training": training.loss, "validation": training.held_out}
    return {
        "loss": lines({name: curve for name, curve in losses.items() if curve}, STEPS, "loss"),
        "learning-rate": lines({"": training.rate}, STEPS, "learning rate"),
        "gradient-norm": lines({"": training.norm}, STEPS, "gradient norm"),
    }
