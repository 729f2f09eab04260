"""scores: what every way to answer is worth, with intervals, and whether tuning and voting help."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import orjson

from workflow.accuracy import Figures
from workflow.curves import Curves, read_curves
from workflow.errors import BuildError
from workflow.likely import LikelyTally
from workflow.metrics import metrics_of
from workflow.processes import in_order
from workflow.products.rows import ROWS
from workflow.results import (
    ITEMS,
    PREDICTIONS,
    SCORES,
    VOTED,
    AskedRow,
    Drawn,
    Prediction,
    Scores,
    Span,
    VotedLine,
    parts,
    read_records,
    read_together,
)
from workflow.schemas import check
from workflow.score_tally import Tally
from workflow.store.build import Job
from workflow.text_scores import TextTally
from workflow.voting import Reader

SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
ROLES = ("draws", "greedy", "base")
"""Inputs that are predictions."""


def make(job: Job) -> dict[str, Any]:
    """Write `scores.json` and `items.jsonl`; in one pass over the inputs, with the memory of one row.

    Returns:
        Counts: rows, scored rows, draws per row.

    Raises:
        BuildError: The inputs are not about the same rows, or not what their role says.
    """
    curves = read_curves(job.inputs["voted"]) if "voted" in job.inputs else None
    tally, chosen = _tally(job, curves), [job.slice[name] for name in ("weigh", "resamples", "seed")]
    counts: dict[str, Any] = {"rows": tally.rows, "scored": tally.scored, "draws": tally.draws}
    figures = Figures(tally.accuracy, *chosen)
    scores = Scores(
        **counts,
        problems=tally.problems,
        texts={name: counted.result() for name, counted in tally.counted.items()},
        majority_answer=tally.accuracy.majority_answer,
        systems=figures.systems(),
        tests=figures.tests(),
        text_metrics=tally.texts.results(*chosen),
        likelihood=tally.likely.result(*chosen[1:]),
        curves=curves,
    )
    value = check("scores", scores.model_dump(mode="json"), job.out / SCORES)
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (job.out / SCORES).write_text(text + "\n", encoding="utf-8")
    return counts


def _tally(job: Job, curves: Curves | None) -> Tally:
    scoring = _Scoring(job, curves)
    tally = scoring.fresh()
    with (job.out / ITEMS).open("wb") as items:
        for lines, part in in_order(scoring.part, scoring.parts(), job.resources.threads):
            items.write(lines)
            tally.absorb(part)
    if not tally.rows:
        raise BuildError(f"{scoring.files[0][0]}: no rows; there is nothing to score")
    return tally


class _Scoring:
    """Scores parts of the rows."""

    def __init__(self, job: Job, curves: Curves | None):
        rows = job.inputs["rows"] / ROWS
        self.paths = {role: job.inputs[role] / PREDICTIONS for role in ROLES if role in job.inputs}
        self.files: list[tuple[Path, type[Any]]] = [(rows, AskedRow)]
        self.files += [(path, Prediction) for path in self.paths.values()]
        self.voted = job.inputs["voted"] / VOTED if "voted" in job.inputs else None
        if self.voted:
            self.files.append((self.voted, VotedLine))
        self.others = range(1) if curves and len(curves.voters) == 1 else range(sys.maxsize)
        self.metrics = metrics_of(job.slice, job.sources)
        self.reader = Reader.of(job.slice["answer"]) if self.voted else None
        self.likely = LikelyTally.of(job.inputs)
        self.draws = 0

    def fresh(self) -> Tally:
        """Nothing counted yet."""
        return Tally(TextTally(self.metrics), self.reader, likely=LikelyTally(self.likely.found))

    def parts(self) -> list[tuple[Span, ...]]:
        """The rows in parts; the number of draws is taken from the first row."""
        found = parts([path for path, _ in self.files])
        first = next(read_records(self.paths["draws"], Prediction), None)
        self.draws = len(first.draws) if first else 0
        return found

    def part(self, part: tuple[Span, ...]) -> tuple[bytes, Tally]:
        """The lines of items.jsonl, and what was counted."""
        lines, tally = bytearray(), self.fresh()
        for row, *records in read_together(*self.files, part=part):
            drawn = {role: record.draws for role, record in zip(self.paths, records, strict=False)}
            if self.voted:
                _check_voted(row, records[-1], len(drawn["draws"]), self.voted, self.others)
            _check_draws(row, drawn, self.draws, self.paths)
            values = tally.add(row, drawn, records[-1] if self.voted else None)
            if values:
                lines += orjson.dumps({"group": row.group, "id": row.id, "values": values}, option=SORTED)
        return bytes(lines), tally.bare()


def _check_voted(row: AskedRow, line: VotedLine, draws: int, path: Path, others: range) -> None:
    """Refuse a vote that is not about this row's gold answer and draws, and `others` more of other voters."""
    if line.gold != row.gold:
        raise BuildError(
            f"{path}: row {row.id!r}: gold is {line.gold!r}, in the rows {row.gold!r}; vote again"
        )
    if (sum(line.votes.values()) + line.abstentions) - draws not in others:
        raise BuildError(f"{path}: row {row.id!r} was voted from another number of draws; vote again")


def _check_draws(row: AskedRow, drawn: dict[str, list[Drawn]], before: int, paths: dict[str, Path]) -> None:
    """Refuse a row with more or fewer draws than the others, or a greedy prediction with several."""
    for role, draws in drawn.items():
        wanted = before if role == "draws" else 1
        if len(draws) != wanted:
            raise BuildError(
                f"{paths[role]}: row {row.id!r} has {len(draws)} draws, not {wanted}; predict again"
            )
