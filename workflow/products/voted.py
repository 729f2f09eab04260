"""voted: the draws of every test row, voted into one answer; and the same as a contest submission."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from workflow.curves import CURVES
from workflow.errors import BuildError
from workflow.processes import in_order
from workflow.products.rows import ROWS
from workflow.results import SUBMISSION, VOTED, AskedRow, VotedLine
from workflow.spans import Span
from workflow.store.address import canonical
from workflow.store.build import Job
from workflow.vote_curves import Seen, VoteCurves
from workflow.voters import Voters
from workflow.voting import Ties, Vote, vote


def make(job: Job) -> dict[str, Any]:
    """Write `voted.jsonl`, `curves.json`, and `submission.jsonl` where the rows are questions of problems.

    Returns:
        Counts: rows; draws per row; rows voted, abstained (no answer) and tied; abstentions (draws without
        a valid answer); unscored rows (no gold) and correct ones; mean agreement; problems submitted;
        voters, with the draws and the weight of each, where there are several or weights are used.

    Raises:
        BuildError: A row has no prediction or a prediction no row, or rows differ in the number of draws.
    """
    work = _Voting(job)
    tally, submission, curves = _Tally(), _Submission(), VoteCurves(work.voters, work.ties)
    with (job.out / VOTED).open("wb") as file:
        for part in in_order(work.vote, enumerate(work.voters.parts()), job.resources.threads):
            if part.first:
                work.voters.count(part.first, part.draws)
            if tally.last >= part.first and tally.last:
                rows = job.inputs["rows"] / ROWS
                raise BuildError(f"{rows}: {part.first!r} after {tally.last!r} is not sorted; build again")
            tally.merge(part.tally)
            curves.seen.merge(part.seen)
            submission.add(part.places)
            with part.path.open("rb") as lines:
                shutil.copyfileobj(lines, file)
            part.path.unlink()
    if not tally.counts["rows"]:
        raise BuildError(f"{job.inputs['rows'] / ROWS}: no rows; there is nothing to vote on")
    _write_curves(job.out / CURVES, curves)
    counts = tally.result(sum(work.voters.counts.values()))
    return counts | _voters(work.voters) | {"problems": submission.write(job.out / SUBMISSION)}


class _Part(NamedTuple):
    """What came of some rows."""

    path: Path  # of their lines
    first: str  # row id
    draws: list[int]  # of each voter
    tally: _Tally
    seen: Seen
    places: list[Place] | None  # None: a row belongs to no problem


class _Voting:
    """Votes on parts of the rows."""

    def __init__(self, job: Job):
        self.job, self.ties = job, Ties(job.slice["ties"], job.slice["seed"] or 0)
        self.voters = Voters(job)

    def vote(self, numbered: tuple[int, list[Span]]) -> _Part:
        number, part = numbered
        path, first = self.job.work / f"part-{number}.jsonl", ""
        voters, tally, curves = self.voters, _Tally(), VoteCurves(self.voters, self.ties)
        places: list[Place] | None = []
        with path.open("wb") as file:
            for ballot in voters.ballots(part):
                row, right = ballot.row, voters.reader.accepted(ballot.row)
                result = vote(ballot.answers, self.ties, row.id, ballot.weights)
                line, first = voted_line(row, result, right), first or row.id
                tally.add(line)
                places = _with(places, row, line.answer)
                if right:
                    curves.add(ballot, result, right)
                file.write(line.model_dump_json().encode() + b"\n")  # the id first: people read it
        return _Part(path, first, [*voters.counts.values()], tally, curves.seen, places)


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
    last: str = ""  # row id

    def add(self, line: VotedLine) -> None:
        self.last = line.id
        self.agreed += line.agreement
        self.counts["rows"] += 1
        self.counts["abstained"] += line.answer is None
        self.counts["ties"] += line.tie
        self.counts["abstentions"] += line.abstentions
        self.counts["unscored"] += not line.gold
        self.counts["correct"] += bool(line.correct)

    def merge(self, other: _Tally) -> None:
        self.counts.update(other.counts)
        self.agreed, self.last = self.agreed + other.agreed, other.last

    def result(self, draws: int) -> dict[str, Any]:
        rows = self.counts["rows"]
        voted = {"voted": rows - self.counts["abstained"], "draws": draws}
        return {**self.counts, **voted, "agreement": round(self.agreed / rows, 6)}


class Place(NamedTuple):
    """Where a row's answer belongs."""

    row: str
    group: str
    position: int
    answer: str | None


def _with(places: list[Place] | None, row: AskedRow, answer: str | None) -> list[Place] | None:
    """The places with one more; None from the first row on that belongs to no problem."""
    if places is None or row.group is None or row.index is None:
        return None
    places.append(Place(row.id, row.group, row.index, answer))
    return places


class _Submission:
    """Answers by problem id and question position: never by text, which two problems may share."""

    def __init__(self) -> None:
        self.problems: defaultdict[str, dict[int, str | None]] = defaultdict(dict)
        self.complete = True

    def add(self, places: list[Place] | None) -> None:
        self.complete &= places is not None
        for row, group, position, answer in places or ():
            if position in self.problems[group]:
                raise BuildError(f"row {row!r}: problem {group!r} has two questions {position}; rename one")
            self.problems[group][position] = answer

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
