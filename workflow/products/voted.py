"""voted: the draws of every test row, voted into one answer; and the same as a contest submission."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.results import PREDICTIONS, SUBMISSION, VOTED, AskedRow, Prediction, VotedLine, read_together
from workflow.store.address import canonical
from workflow.store.build import Job
from workflow.voting import Reader, vote


def make(job: Job) -> dict[str, Any]:
    """Write `voted.jsonl`, and `submission.jsonl` where the rows are questions of problems.

    Returns:
        Counts: rows; draws per row; rows voted, abstained (no answer) and tied; abstentions (draws without
        a valid answer); unscored rows (no gold) and correct ones; mean agreement; problems submitted.

    Raises:
        BuildError: A row has no prediction or a prediction no row, or rows differ in the number of draws.
    """
    reader, ties = Reader.of(job.slice["answer"]), job.slice["ties"]
    tally, submission = _Tally(), _Submission()
    rows, predictions = job.inputs["rows"] / ROWS, job.inputs["predictions"] / PREDICTIONS
    with (job.out / VOTED).open("wb") as file:
        for row, prediction in read_together((rows, AskedRow), (predictions, Prediction)):
            line = voted_line(row, prediction, reader, ties)
            tally.add(line, len(prediction.draws), predictions)
            submission.add(row, line.answer)
            file.write(
                line.model_dump_json().encode() + b"\n"
            )  # in field order, the id first: people read it
    if not tally.counts["rows"]:
        raise BuildError(f"{rows}: no rows; there is nothing to vote on")
    return tally.result() | {"problems": submission.write(job.out / SUBMISSION)}


def voted_line(row: AskedRow, prediction: Prediction, reader: Reader, ties: str) -> VotedLine:
    """The vote on one row; without a gold answer it is marked unscored (`correct` null)."""
    letters = row.letters
    result = vote([reader.read(draw.text, letters) for draw in prediction.draws], ties)
    correct = result.answer in row.gold if row.gold else None
    return VotedLine(id=row.id, gold=row.gold, correct=correct, **vars(result))


@dataclass
class _Tally:
    """What is counted over all rows."""

    counts: Counter[str] = field(default_factory=Counter)
    agreed: int = 0
    draws: int = 0

    def add(self, line: VotedLine, draws: int, path: Path) -> None:
        if draws != (self.draws or draws):
            raise BuildError(f"{path}: row {line.id!r} has {draws} draws, not {self.draws}; predict again")
        self.draws = draws
        self.agreed += line.votes[line.answer] if line.answer is not None else 0
        self.counts["rows"] += 1
        self.counts["abstained"] += line.answer is None
        self.counts["ties"] += line.tie
        self.counts["abstentions"] += line.abstentions
        self.counts["unscored"] += not line.gold
        self.counts["correct"] += bool(line.correct)

    def result(self) -> dict[str, Any]:
        rows = self.counts["rows"]
        voted = {"voted": rows - self.counts["abstained"], "draws": self.draws}
        return {**self.counts, **voted, "agreement": round(self.agreed / (rows * self.draws), 6)}


class _Submission:
    """Answers by problem id and question position: never by text, which two problems may share."""

    def __init__(self) -> None:
        self.problems: defaultdict[str, dict[int, str | None]] = defaultdict(dict)
        self.complete = True

    def add(self, row: AskedRow, answer: str | None) -> None:
        if row.group is None or row.index is None:
            self.complete = False
        elif row.index in self.problems[row.group]:
            raise BuildError(
                f"row {row.id!r}: problem {row.group!r} has two questions {row.index}; rename one"
            )
        else:
            self.problems[row.group][row.index] = answer

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
