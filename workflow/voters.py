"""Who votes in a job of `voted`, what each of their draws counts, and their answers row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.recipe.answers import OWN
from workflow.results import PREDICTIONS, AskedRow, Drawn, Prediction, Span, parts, read_together
from workflow.store.address import address_of
from workflow.store.build import Job
from workflow.voter_nodes import ROWS_OF, VOTER, WEIGHED, WEIGHING
from workflow.voting import Reader

LEAST = -700.0
"""Log-probabilities below this one count as much as it: e to it is still a number."""


@dataclass(frozen=True)
class Ballot:
    """A row and the draws of every voter, in the order of the voters."""

    row: AskedRow
    draws: list[Sequence[Drawn]]
    answers: list[str | None]  # of all draws, one voter's after the other
    weights: list[float] | None  # of the same; None: all count one


class Voters:
    """The voters of a job: own draws first, then those of variants by name, members in the recipe's order."""

    def __init__(self, job: Job):
        """Find them, and weigh them where validation does.

        Raises:
            BuildError: What they are weighed by is also tested on, or is not what it should be.
        """
        self.job, self.reader = job, Reader.of(job.slice["answer"])
        self.names = _ordered(job, VOTER)
        self.weights = self._weights(job.slice["weights"])
        self.counts: dict[str, int] = {}
        """Voter -> draws of each row."""

    def _weights(self, chosen: Any) -> dict[str, float] | None:
        """Voter -> what its draws count; None: all the same, or each draw its own."""
        if chosen == "accuracy":
            return {name: round(weight, 9) for name, weight in self._accuracies().items()}
        if isinstance(chosen, dict):
            return {name: float(chosen.get(name, 1)) for name in self.names}
        return None

    def parts(self) -> list[tuple[Span, ...]]:
        """The rows in parts; the number of draws is taken from the first row.

        Raises:
            BuildError: A file is missing, or the first row is not as it should be.
        """
        found = parts([path for path, _ in self._files()])
        if found:
            next(self.ballots(found[0]), None)
        return found

    def _files(self) -> list[tuple[Path, type[Any]]]:
        """Rows, the rows of other members, and predictions."""
        others = [self.job.inputs[r] / ROWS for r in sorted(self.job.inputs) if r.startswith(ROWS_OF)]
        files: list[tuple[Path, type[Any]]] = [(job_rows(self.job, "rows"), AskedRow)]
        files += [(path, AskedRow) for path in others]
        return files + [(self.job.inputs[VOTER + name] / PREDICTIONS, Prediction) for name in self.names]

    def ballots(self, part: tuple[Span, ...]) -> Iterator[Ballot]:
        """Row by row of a part; all predictions and rows must be about the same.

        Raises:
            BuildError: A row is not in all files, another row has its id, or the number of draws changes.
        """
        files, weighed = self._files(), self._weighed_by
        others = [path for path, model in files[1:] if model is AskedRow]
        paths = [path for path, model in files if model is Prediction]
        for row, *records in read_together(*files, part=part):
            if weighed and address_of(row.asked) in weighed:
                raise BuildError(
                    f"row {row.id!r} is tested on, and dataset.validation has the same; remove it there"
                )
            for other, path in zip(records, others, strict=False):
                _refuse_another(row, other, path)
            drawn = [record.draws for record in records[len(others) :]]
            self._count(row.id, drawn, paths)
            yield self._ballot(row, drawn)

    def _ballot(self, row: AskedRow, drawn: list[Sequence[Drawn]]) -> Ballot:
        letters, read = row.letters, self.reader.read
        answers = [read(draw.text, letters) for draws in drawn for draw in draws]
        weights = None
        if self.job.slice["weights"] == "logprob":
            weights = [_certainty(row, draw) for draws in drawn for draw in draws]
        elif self.weights:
            pairs = zip(self.names, drawn, strict=True)
            weights = [self.weights[name] for name, draws in pairs for _ in draws]
        return Ballot(row, drawn, answers, weights)

    def _count(self, id: str, drawn: list[Sequence[Drawn]], paths: list[Path]) -> None:
        for name, draws, path in zip(self.names, drawn, paths, strict=True):
            before = self.counts.setdefault(name, len(draws))
            if len(draws) != before:
                raise BuildError(f"{path}: row {id!r} has {len(draws)} draws, not {before}; predict again")

    @cached_property
    def _weighed_by(self) -> set[str]:
        """What the rows ask that voters are weighed by."""
        if WEIGHING not in self.job.inputs:
            return set()
        return {address_of(row.asked) for (row,) in read_together((job_rows(self.job, WEIGHING), AskedRow))}

    def _accuracies(self) -> dict[str, float]:
        """Voter -> share of right draws over the validation rows, by Laplace's rule of succession.

        One right and one wrong draw more than there were: no voter has weight 0.
        """
        names = _ordered(self.job, WEIGHED)
        files = [(self.job.inputs[WEIGHED + name] / PREDICTIONS, Prediction) for name in names]
        rows = job_rows(self.job, WEIGHING)
        right, asked = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for row, *predictions in read_together((rows, AskedRow), *files):
            gold = self.reader.accepted(row)
            for name, prediction in zip(names, predictions, strict=True) if gold else ():
                answers = [self.reader.read(draw.text, row.letters) for draw in prediction.draws]
                right[name] += sum(answer in gold for answer in answers)
                asked[name] += len(answers)
        if not any(asked.values()):
            raise BuildError(f"{rows}: no row has a known answer; nobody can be weighed by it")
        return {name: (right[name] + 1) / (asked[name] + 2) for name in names}


def job_rows(job: Job, role: str) -> Path:
    """The rows of a role."""
    return job.inputs[role] / ROWS


def _ordered(job: Job, before: str) -> list[str]:
    """Names of voters with such a role: own, variants, then members in their order with their variants."""
    names = [role.removeprefix(before) for role in job.inputs if role.startswith(before)]
    members: list[str] = job.slice["members"]

    def place(name: str) -> tuple[int, str]:
        of = [
            i for i, member in enumerate(members, start=2) if name == member or name.startswith(f"{member}/")
        ]
        return (max(of) if of else int(name != OWN), name)

    return sorted(names, key=place)


def _certainty(row: AskedRow, draw: Drawn) -> float:
    """e to the mean token log-probability: normalised, as Wang et al. 2023 (arXiv:2203.11171, 2) have it."""
    if draw.logprob is None:
        raise BuildError(
            f"row {row.id!r}: a draw has no log-probability; set sampling.logprobs for every voter"
        )
    return math.exp(max(draw.logprob, LEAST))


def _refuse_another(row: AskedRow, other: AskedRow, path: Path) -> None:
    """Refuse a row of the same id that neither asks the same nor has the same known answer."""
    if row.asked != other.asked and not (row.gold and row.gold == other.gold):
        raise BuildError(f"{path}: row {row.id!r} is another one here; voters must answer the same rows")
