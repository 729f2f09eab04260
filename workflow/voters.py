"""Who votes in a job of `voted`, what each of their draws counts, and their answers row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.recipe.answers import OWN
from workflow.results import PREDICTIONS, AskedRow, Drawn, Prediction, read_together
from workflow.spans import Span, spans
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
        self._weighed = self._weighed_by()
        self._others = [job.inputs[role] / ROWS for role in sorted(job.inputs) if role.startswith(ROWS_OF)]
        self._files: list[tuple[Path, type[Any]]] = [
            (job_rows(job, "rows"), AskedRow),
            *((path, AskedRow) for path in self._others),
            *((job.inputs[VOTER + name] / PREDICTIONS, Prediction) for name in self.names),
        ]

    def _weights(self, chosen: Any) -> dict[str, float] | None:
        """Voter -> what its draws count; None: all the same, or each draw its own."""
        if chosen == "accuracy":
            return {name: round(weight, 9) for name, weight in self._accuracies().items()}
        if isinstance(chosen, dict):
            return {name: float(chosen.get(name, 1)) for name in self.names}
        return None

    def parts(self) -> Iterator[list[Span]]:
        """Parts of all files, to be given to `ballots`."""
        return spans([path for path, _ in self._files])

    def ballots(self, part: list[Span]) -> Iterator[Ballot]:
        """Row by row; all predictions and rows must be about the same.

        Raises:
            BuildError: A row is not in all files, another row has its id, or the number of draws changes.
        """
        others = self._others
        for row, *records in read_together(*self._files, spans=part):
            if self._weighed and address_of(row.asked) in self._weighed:
                raise BuildError(
                    f"row {row.id!r} is tested on, and dataset.validation has the same; remove it there"
                )
            for other, path in zip(records, others, strict=False):
                _refuse_another(row, other, path)
            drawn = [record.draws for record in records[len(others) :]]
            self.count(row.id, [len(draws) for draws in drawn])
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

    def count(self, id: str, draws: Sequence[int]) -> None:
        """Note the number of draws of each voter, which no row may change.

        Raises:
            BuildError: A row has another number than those before.
        """
        for name, number in zip(self.names, draws, strict=True):
            if number != (before := self.counts.setdefault(name, number)):
                path = self.job.inputs[VOTER + name] / PREDICTIONS
                raise BuildError(f"{path}: row {id!r} has {number} draws, not {before}; predict again")

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
