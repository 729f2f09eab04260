"""report: one page about a recipe: what it is worth, what it was made from, how long it took.

`report.html` needs nothing but itself: style and charts are inside, and the page forbids itself the network.
"""

from __future__ import annotations

from typing import Any

from workflow.report.figures import FIGURES, figures, write_figures
from workflow.report.inputs import Inputs
from workflow.report.lengths import lengths
from workflow.report.page import render
from workflow.report.recipe import as_yaml, asked, title
from workflow.report.rows import sentences, training_rows
from workflow.report.runs import answering, environments, libraries, timings
from workflow.report.samples import predictions
from workflow.report.training import read_training
from workflow.report.verdict import read_scores, verdict
from workflow.show import notes
from workflow.store.build import Job

REPORT = "report.html"


def make(job: Job) -> dict[str, Any]:
    """Write `report.html`, and its pictures as files in `figures/`.

    Times, hosts and versions come from run records and differ between two runs.

    Returns:
        Counts: products the page is about, and rows whose predictions it shows side by side.

    Raises:
        BuildError: An input is missing a file or damaged.
    """
    inputs, recipe = Inputs.of(job), job.slice["recipe"]
    scores, shown = read_scores(inputs), predictions(inputs, recipe)
    training, rows = read_training(inputs), lengths(inputs, recipe)
    pictures = figures(scores, training, rows)
    write_figures(pictures, job.out / FIGURES)
    page = render(
        title=title(recipe),
        recipe=as_yaml(recipe),
        asked=asked(recipe),
        verdict=verdict(scores, recipe),
        scores=scores,
        figures=pictures,
        notes=notes(scores) if scores else [],
        inputs=inputs,
        lengths=rows,
        training=training,
        predictions=shown,
        samples=shown.telling if shown else [],
        rows_shown=training_rows(inputs),
        said=sentences(inputs),
        timings=timings(inputs),
        libraries=libraries(inputs),
        environments=environments(inputs),
        answering=answering(inputs),
    )
    # A lone surrogate, which JSON can smuggle in, has no bytes in UTF-8.
    (job.out / REPORT).write_bytes(page.encode("utf-8", "replace"))
    return {"products": len(inputs.manifests), "samples": len(shown.telling) if shown else 0}
