"""The scores as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workflow.arms import EXPERIMENTS
from workflow.errors import BuildError
from workflow.measures import Likelihood, Measured, Test, TextMetric, TextTest
from workflow.rehearsal import REHEARSAL
from workflow.results import SCORES, Scores
from workflow.schemas import check
from workflow.store.files import read_json

SYSTEMS = {
    "majority_class": "majority class",
    "base": "base model, greedy",
    "greedy": "this model, greedy",
    "single": "one draw",
    "draws": "mean of {draws} draws",
    "voted": "vote of {draws} draws",
}
TESTS = {
    "greedy_vs_base": ("tuning", "this model", "the base model"),
    "voted_vs_single": ("voting", "the vote", "the first draw"),
    "voted_vs_greedy": ("voting", "the vote", "greedy"),
}
PAIRED = {"greedy_vs_base": ("tuning", "this model", "the base model")}
MODELS = {"base": "base model", "greedy": "this model"}
LIKELY = ("known answers", "loss", "95 % interval", "perplexity", "n")
TEXT_HEADER = ("%", "95 % interval", "n", "cut at max_tokens %")
COUNTED = ("texts", "texts", "empty", "cut", "in a loop", "without an answer")
HEADER = ("system", "accuracy %", "95 % interval", "n", "parsed %", "cut at max_tokens %")


def summary(recipe: str, results: Path = Path("results")) -> str:
    """The table of a recipe's published scores.

    Raises:
        BuildError: They are not built, or damaged.
    """
    path = results / recipe / SCORES
    experiment, _, arm = recipe.removeprefix(REHEARSAL).removeprefix(EXPERIMENTS).partition("/")
    if not arm and experiment != recipe.removeprefix(REHEARSAL):
        raise BuildError(f"{recipe}: an experiment has no scores of its own; run `tunemake compare {recipe}`")
    if not path.exists():
        raise BuildError(f"{path}: not built yet; run `snakemake {path} --cores all`")
    return table(Scores.model_validate(check("scores", read_json(path), path)))


def table(scores: Scores) -> str:
    """The systems as aligned columns, then each test in words; no newline at the end.

    Percentages have one decimal. `parsed`: texts with a valid answer; `cut at max_tokens`: texts that the
    token limit ended.
    """
    if not scores.systems and not scores.text_metrics and not scores.likelihood:
        return f"not scored: none of the {scores.rows} test rows has a gold answer"
    rows = [_row(scores, name) for name in SYSTEMS if name in scores.systems]
    tables = ["\n".join(aligned([HEADER, *rows]))] if rows else []
    tables += [
        "\n".join(aligned([(name, *TEXT_HEADER), *text_rows(scores, name)])) for name in scores.text_metrics
    ]
    tables += ["\n".join(aligned([LIKELY, *likely_rows(scores)]))] if scores.likelihood else []
    tables += ["\n".join(aligned([COUNTED, *count_rows(scores)]))] if scores.texts else []
    return "\n\n".join([*tables, "\n".join(notes(scores))]).rstrip("\n")


def likely_rows(scores: Scores) -> list[Sequence[str]]:
    """Loss of each model over the known answers: name, loss, interval, perplexity, rows."""
    assert scores.likelihood
    return [
        (
            MODELS[name],
            f"{found.loss:.4f}",
            f"{found.low:.4f} to {found.high:.4f}",
            f"{found.perplexity:.3f}",
            str(scores.likelihood.rows),
        )
        for name in MODELS
        if (found := scores.likelihood.systems.get(name))
    ]


def count_rows(scores: Scores) -> list[Sequence[str]]:
    """What is counted of each system's texts: name, texts, empty, cut, loops, those without an answer."""
    return [
        (
            SYSTEMS[name].format(draws=scores.draws),
            *(str(number) for number in (found.texts, found.empty, found.cut, found.loops)),
            "-" if found.abstained is None else str(found.abstained),
        )
        for name in SYSTEMS
        if (found := scores.texts.get(name))
    ]


def text_rows(scores: Scores, metric: str) -> list[Sequence[str]]:
    """What a metric of texts has of each system: name, figure, interval, problems, texts cut."""
    found = scores.text_metrics[metric].systems
    return [
        (
            SYSTEMS[name].format(draws=scores.draws),
            _percent(found[name].mean),
            f"{_percent(found[name].low)} to {_percent(found[name].high)}",
            str(found[name].n),
            _percent(found[name].length_rate),
        )
        for name in SYSTEMS
        if name in found
    ]


def _row(scores: Scores, name: str) -> Sequence[str]:
    system: Measured = scores.systems[name]
    interval = f"{_percent(system.low)} to {_percent(system.high)}"
    rates = [_percent(system.parse_rate), _percent(system.length_rate)]
    label = SYSTEMS[name].format(draws=scores.draws)
    return label, _percent(system.accuracy), interval, str(system.n), *rates


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines: first column to the left, the others to the right, two spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def notes(scores: Scores) -> list[str]:
    """What the columns do not say: the baseline, rows left out, the tests in words."""
    notes = []
    if scores.majority_answer is not None:
        notes.append(f"majority class: every row answered {scores.majority_answer}")
    if scores.scored < scores.rows:
        left = scores.rows - scores.scored
        notes.append(f"not scored: {left} of {scores.rows} rows, which have no gold answer")
    notes += [_words(scores, name) for name in TESTS if name in scores.tests]
    for metric, found in scores.text_metrics.items():
        notes += [_paired(metric, name, found) for name in PAIRED if name in found.tests]
    if scores.likelihood:
        notes += [_lost(name, scores.likelihood) for name in PAIRED if name in scores.likelihood.tests]
    notes += [f"{metric}: {found.signature}" for metric, found in scores.text_metrics.items()]
    return notes


def _words(scores: Scores, name: str) -> str:
    """One test as a sentence: `tuning: this model alone is right on 31 rows, ...: p = 0.0054 (...)`."""
    (what, one, other), test = TESTS[name], scores.tests[name]
    method = "exact McNemar test" if test.method == "mcnemar" else "paired bootstrap"
    return (
        f"{what}: only {one} is right on {test.better} rows, only {other} on {test.worse}: "
        f"{_chance(test.p)} ({method}); {_points(test)}"
    )


def _points(test: Test | TextTest) -> str:
    low, difference, high = (f"{100 * value:+.1f}" for value in (test.low, test.difference, test.high))
    return f"{difference} points, 95 % interval {low} to {high}"


def _paired(metric: str, name: str, found: TextMetric) -> str:
    (what, one, other), test = PAIRED[name], found.tests[name]
    return (
        f"{what}: {metric} of {one} less that of {other} is {_points(test)}: "
        f"{_chance(test.p)} (paired bootstrap)"
    )


def _lost(name: str, found: Likelihood) -> str:
    (what, one, other), test = PAIRED[name], found.tests[name]
    return (
        f"{what}: loss of {one} less that of {other} is {test.difference:+.4f}, 95 % interval "
        f"{test.low:+.4f} to {test.high:+.4f}: {_chance(test.p)} (paired bootstrap)"
    )


def _chance(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.1 else f"p = {p:.2f}"


def closing(recipes: Sequence[str], results: Path = Path("results")) -> str:
    """What a finished build says: the table of each of `recipes` that has scores to show."""
    scored = [name for name in recipes if (results / name / SCORES).exists()]
    return "\n\n".join(f"results/{name}\n{summary(name, results)}" for name in scored)
