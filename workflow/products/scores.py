"""scores: what every way to answer is worth, with intervals, and whether tuning and voting help."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow.curves import read_curves
from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.results import (
    PREDICTIONS,
    SCORES,
    VOTED,
    AskedRow,
    Drawn,
    Measured,
    Prediction,
    Scores,
    Test,
    VotedLine,
    read_together,
)
from workflow.rouge import ROUGE, Rouge
from workflow.schemas import check
from workflow.significance import bootstrap, mcnemar
from workflow.store.build import Job
from workflow.text_scores import TextTally
from workflow.voting import Reader

TESTS = {
    "greedy_vs_base": ("greedy", "base"),
    "voted_vs_single": ("voted", "single"),
    "voted_vs_greedy": ("voted", "greedy"),
}


def make(job: Job) -> dict[str, Any]:
    """Write `scores.json`; in one pass over the inputs, with the memory of one row.

    Returns:
        Counts: rows, scored rows, draws per row.

    Raises:
        BuildError: The inputs are not about the same rows, or not what their role says.
    """
    tally, resampling = _tally(job), (job.slice["resamples"], job.slice["seed"])
    systems, tests, texts = {}, {}, {}
    if tally.systems:
        systems = {
            name: measured(system, tally.scored, *resampling)
            for name, system in (tally.systems | {"majority_class": tally.majority_class()}).items()
        }
        tests = {name: tally.test(*pair) for name, pair in TESTS.items() if set(pair) <= systems.keys()}
    if tally.texts:
        texts = tally.texts.metrics(*resampling)
    counts: dict[str, Any] = {"rows": tally.rows, "scored": tally.scored, "draws": tally.draws}
    majority = tally.majority_answer()
    scores = Scores(
        **counts,
        majority_answer=majority,
        systems=systems,
        tests=tests,
        text_metrics=texts,
        curves=read_curves(job.inputs["voted"]) if "voted" in job.inputs else None,
    )
    value = check("scores", scores.model_dump(mode="json"), job.out / SCORES)
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (job.out / SCORES).write_text(text + "\n", encoding="utf-8")
    return counts


@dataclass
class System:
    """What is counted of one way to answer, over the scored rows."""

    per_row: int = 1  # answers per row: n for `draws`, else 1
    right: Counter[int] = field(default_factory=Counter)  # right answers in a row -> number of such rows
    asked: int = 0  # rows or texts that could have had an answer; 0 where none is read
    parsed: int = 0
    texts: int = 0
    cut: int = 0  # texts that max_tokens ended

    def add(self, right: int, parsed: int, texts: int, cut: int) -> None:
        """Count one row: right and valid answers in it, the texts behind them, and those cut short."""
        self.right[right] += 1
        self.asked += self.per_row
        self.parsed += parsed
        self.texts += texts
        self.cut += cut


@dataclass
class Tally:
    """What is counted over the rows: enough for every figure, and of a size that rows do not change."""

    texts: TextTally | None = None
    draws: int = 0
    rows: int = 0
    scored: int = 0
    golds: Counter[str] = field(default_factory=Counter)
    systems: dict[str, System] = field(default_factory=dict)
    only: Counter[tuple[str, str]] = field(default_factory=Counter)  # rows that only the first has right

    def add(self, row: AskedRow, drawn: Mapping[str, list[Drawn]]) -> bool:
        """Count one row; whether it has a gold answer. `drawn` holds the texts of each role."""
        self.rows += 1
        self.scored += bool(row.gold)
        if row.gold and self.texts:
            self.texts.add(row, drawn)
        return bool(row.gold)

    def add_vote(
        self, row: AskedRow, line: VotedLine, drawn: Mapping[str, list[Drawn]], reader: Reader
    ) -> None:
        """Count the answers to a row with a gold one."""
        accepted = reader.accepted(row)
        for gold in accepted:
            self.golds[gold] += 1
        right = {"voted": line.answer in accepted}
        behind = len(drawn["draws"]), sum(text.finish_reason == "length" for text in drawn["draws"])
        self._system("voted").add(right["voted"], line.answer is not None, *behind)
        # The votes are the draws' answers already read; only the first draw's own has to be read again.
        parsed = sum(line.votes.values())
        drawn_right = sum(line.votes.get(gold, 0) for gold in accepted)
        self._system("draws", parsed + line.abstentions).add(drawn_right, parsed, *behind)
        letters = row.letters
        for role, (text, *_) in drawn.items():
            name, answer = "single" if role == "draws" else role, reader.read(text.text, letters)
            right[name] = answer in accepted
            self._system(name).add(right[name], answer is not None, 1, text.finish_reason == "length")
        self._compare(right)

    def _system(self, name: str, per_row: int = 1) -> System:
        if name not in self.systems:
            self.systems[name] = System(per_row)
        return self.systems[name]

    def _compare(self, right: dict[str, bool]) -> None:
        for one, other in TESTS.values():
            if other in right and right[one] != right[other]:
                self.only[(one, other) if right[one] else (other, one)] += 1

    def majority_answer(self) -> str | None:
        """The most frequent gold answer, the first in the alphabet among equals."""
        return min(self.golds, key=lambda gold: (-self.golds[gold], gold), default=None)

    def majority_class(self) -> System:
        """The baseline that gives `majority_answer` to every row."""
        most = max(self.golds.values())
        return System(right=Counter({1: most, 0: self.scored - most}))

    def test(self, one: str, other: str) -> Test:
        """McNemar's test of two systems."""
        better, worse = self.only[one, other], self.only[other, one]
        return Test(better=better, worse=worse, p=mcnemar(better, worse))


def _tally(job: Job) -> Tally:
    rows = job.inputs["rows"] / ROWS
    paths: dict[str, Path] = {
        role: job.inputs[role] / PREDICTIONS for role in ("draws", "greedy", "base") if role in job.inputs
    }
    files: list[tuple[Path, type[Any]]] = [(rows, AskedRow), *((path, Prediction) for path in paths.values())]
    voted = job.inputs["voted"] / VOTED if "voted" in job.inputs else None
    if voted:
        files.append((voted, VotedLine))
        reader = Reader.of(job.slice["answer"])
        curves = read_curves(job.inputs["voted"])
        others = range(1) if curves and len(curves.voters) == 1 else range(sys.maxsize)
    tally = Tally(_texts(job))
    for row, *records in read_together(*files):
        drawn = {role: record.draws for role, record in zip(paths, records, strict=False)}
        if voted:
            _check_voted(row, records[-1], len(drawn["draws"]), voted, others)
        _check_draws(row, drawn, tally.draws, paths)
        tally.draws = len(drawn["draws"])
        if tally.add(row, drawn) and voted:
            tally.add_vote(row, records[-1], drawn, reader)
    if not tally.rows:
        raise BuildError(f"{rows}: no rows; there is nothing to score")
    return tally


def _texts(job: Job) -> TextTally | None:
    """What counts metrics of texts, if any is asked for."""
    asked = [metric for metric in ROUGE if metric in job.slice["metrics"]]
    return TextTally(Rouge(asked, job.slice["stem"])) if asked else None


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
        wanted = (before or len(draws)) if role == "draws" else 1
        if len(draws) != wanted:
            raise BuildError(
                f"{paths[role]}: row {row.id!r} has {len(draws)} draws, not {wanted}; predict again"
            )


def measured(system: System, n: int, resamples: int, seed: int) -> Measured:
    """Accuracy of a system over `n` rows, with its interval and rates."""
    low, high = bootstrap(system.right, resamples, seed)
    total = n * system.per_row
    return Measured(
        accuracy=sum(right * rows for right, rows in system.right.items()) / total,
        low=low / total,
        high=high / total,
        n=n,
        parse_rate=system.parsed / system.asked if system.asked else None,
        length_rate=system.cut / system.texts if system.texts else None,
    )
