"""voted: the draws of every test row, voted into one answer; and the same as a contest submission."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from workflow.curves import CURVES
from workflow.errors import BuildError
from workflow.processes import in_order
from workflow.products.rows import ROWS
from workflow.results import SUBMISSION, VOTED, AskedRow, Span, VotedLine
from workflow.store.address import canonical
from workflow.store.build import Job
from workflow.vote_curves import VoteCurves
from workflow.voters import Voters
from workflow.voting import Ties, Vote, vote

Asked = tuple[str, str | None, int | None, str | None]
"""Id, problem and position of a row, and the answer to it."""


def make(job: Job) -> dict[str, Any]:
    """Write `voted.jsonl`, `curves.json`, and `submission.jsonl` where the rows are questions of problems.

    Returns:
        Counts: rows; draws per row; rows voted, abstained (no answer) and tied; abstentions (draws without
        a valid answer); unscored rows (no gold) and correct ones; mean agreement; problems submitted;
        voters, with the draws and the weight of each, where there are several or weights are used.

    Raises:
        BuildError: A row has no prediction or a prediction no row, or rows differ in the number of draws.
    """
    voters = Voters(job)
    ties, tally, submission = Ties(job.slice["ties"], job.slice["seed"] or 0), _Tally(), _Submission()
    curves = VoteCurves(voters, ties)
    work = partial(_voted, voters, ties)
    with (job.out / VOTED).open("wb") as file:
        for made in in_order(work, voters.parts(), job.resources.threads):
            file.write(made.lines)
            tally.absorb(made.tally)
            submission.absorb(made.asked)
            curves.absorb(made.curves)
    if not tally.counts["rows"]:
        raise BuildError(f"{job.inputs['rows'] / ROWS}: no rows; there is nothing to vote on")
    _write_curves(job.out / CURVES, curves)
    return tally.result() | _voters(voters) | {"problems": submission.write(job.out / SUBMISSION)}


class _Part(NamedTuple):
    """What came of some rows."""

    lines: bytes
    tally: _Tally
    asked: list[Asked]
    curves: tuple[Any, ...]


def _voted(voters: Voters, ties: Ties, part: tuple[Span, ...]) -> _Part:
    """Vote on the rows of a part."""
    lines, asked, tally, curves = bytearray(), [], _Tally(), VoteCurves(voters, ties)
    for ballot in voters.ballots(part):
        row, right = ballot.row, voters.reader.accepted(ballot.row)
        result = vote(ballot.answers, ties, row.id, ballot.weights)
        line = voted_line(row, result, right)
        tally.add(line, len(ballot.answers))
        asked.append((row.id, row.group, row.index, line.answer))
        if right:
            curves.add(ballot, result, right)
        lines += line.model_dump_json().encode() + b"\n"  # in field order, the id first: people read it
    return _Part(bytes(lines), tally, asked, curves.taken())


def voted_line(row: AskedRow, result: Vote, right: Set[str]) -> VotedLine:
    """The vote on one row; without a gold answer it is marked unscored (`correct` null)."""
    correct = result.answer in right if row.gold else None
    return VotedLine(id=row.id, gold=row.gold, correct=correct, **vars(result))


def _write_curves(path: Path, counted: VoteCurves) -> None:
    """Write what the curves are; `null` where no row has a known answer."""
    curves = counted.curves()
    path.write_bytes(canonical(curves and curves.model_dump(mode="json")) + b"\n")


def _voters(voters: Voters) -> dict[str, Any]:
    """What the counts say of several voters."""
    told: dict[str, Any] = {"voters": voters.counts} if len(voters.names) > 1 else {}
    return told | ({"weights": voters.weights} if voters.weights else {})


@dataclass
class _Tally:
    """What is counted over all rows."""

    counts: Counter[str] = field(default_factory=Counter)
    agreed: float = 0.0
    draws: int = 0

    def add(self, line: VotedLine, draws: int) -> None:
        self.draws = draws
        self.agreed += line.agreement
        self.counts["rows"] += 1
        self.counts["abstained"] += line.answer is None
        self.counts["ties"] += line.tie
        self.counts["abstentions"] += line.abstentions
        self.counts["unscored"] += not line.gold
        self.counts["correct"] += bool(line.correct)

    def absorb(self, other: _Tally) -> None:
        self.counts.update(other.counts)
        self.agreed += other.agreed
        self.draws = other.draws

    def result(self) -> dict[str, Any]:
        rows = self.counts["rows"]
        voted = {"voted": rows - self.counts["abstained"], "draws": self.draws}
        return {**self.counts, **voted, "agreement": round(self.agreed / rows, 6)}


class _Submission:
    """Answers by problem id and question position: never by text, which two problems may share."""

    def __init__(self) -> None:
        self.problems: defaultdict[str, dict[int, str | None]] = defaultdict(dict)
        self.complete = True

    def absorb(self, asked: Sequence[Asked]) -> None:
        for id, group, index, answer in asked:
            if group is None or index is None:
                self.complete = False
            elif index in self.problems[group]:
                raise BuildError(f"row {id!r}: problem {group!r} has two questions {index}; rename one")
            else:
                self.problems[group][index] = answer

    def write(self, path: Path) -> int:
        """Write one line per problem, sorted by id, and return their number.

        Nothing is written when a row belongs to no problem: a submission that lacks rows is worse than none.
        """
        if not self.complete:
            return 0
        with path.open("wb") as file:
            for name, answers in sorted(self.problems.items()):
                # A position without a row is null, so that the questions behind it stay in their place.
                questions = [{"answer": answers.get(index)} for index in range(max(answers) + 1)]
                file.write(canonical({"id": name, "questions": questions}) + b"\n")
        return len(self.problems)
