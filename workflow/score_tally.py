"""What is counted over the rows to score them; of parts of the rows, to be added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from workflow.accuracy import Accuracy
from workflow.likely import LikelyTally
from workflow.results import AskedRow, Drawn, VotedLine
from workflow.text_counts import Counted
from workflow.text_scores import TextTally, Values
from workflow.voting import Reader


@dataclass
class Tally:
    """Everything that scores.json is made from."""

    texts: TextTally
    reader: Reader | None  # of answers, where they are voted on
    accuracy: Accuracy = field(default_factory=Accuracy)
    likely: LikelyTally = field(default_factory=LikelyTally)
    draws: int = 0
    rows: int = 0
    scored: int = 0
    alone: int = 0  # scored rows without a group
    groups: set[str] = field(default_factory=set)  # of the others
    counted: dict[str, Counted] = field(default_factory=lambda: defaultdict(Counted))

    @property
    def problems(self) -> int:
        """Problems that the scored rows belong to."""
        return self.alone + len(self.groups)

    def add(self, row: AskedRow, drawn: Mapping[str, list[Drawn]], line: VotedLine | None) -> Values:
        """Count one row; what its answers are worth.

        Args:
            row: What was asked.
            drawn: Role (draws and, where there are, greedy and base) -> texts.
            line: The vote on the draws, if there is one.
        """
        self.rows += 1
        self.draws = len(drawn["draws"])
        values = self.texts.add(row, drawn)
        if likely := self.likely.add(row):
            values["perplexity"] = likely
        answers = self._answers(row, drawn, line)
        if row.gold:
            self.scored += 1
            if row.group is None:
                self.alone += 1
            else:
                self.groups.add(row.group)
            if line and self.reader:
                accepted = self.reader.accepted(row)
                values["accuracy"] = self.accuracy.add(row, line, drawn, answers, accepted)
        return values

    def _answers(
        self, row: AskedRow, drawn: Mapping[str, list[Drawn]], line: VotedLine | None
    ) -> dict[str, str | None]:
        """The answer of each role's first text; all texts are counted."""
        letters, answers = row.letters, {}
        for role, draws in drawn.items():
            abstained = None
            if line and self.reader:
                answers[role] = answer = self.reader.read(draws[0].text, letters)
                abstained = int(answer is None)
                if role == "draws" and line.abstentions + sum(line.votes.values()) == len(draws):
                    abstained = line.abstentions  # the votes are these draws' answers, already read
                elif role == "draws":
                    abstained += sum(self.reader.read(draw.text, letters) is None for draw in draws[1:])
            self.counted[role].add(draws, abstained)
        return answers

    def bare(self) -> Tally:
        """The counts alone, to be sent to another process."""
        texts = replace(self.texts, metrics=())
        return replace(self, texts=texts, reader=None, likely=replace(self.likely, found={}))

    def absorb(self, other: Tally) -> None:
        """Add what another counted of later rows."""
        self.texts.absorb(other.texts)
        self.accuracy.absorb(other.accuracy)
        self.likely.problems |= other.likely.problems
        self.draws = self.draws or other.draws
        self.rows += other.rows
        self.scored += other.scored
        self.alone += other.alone
        self.groups |= other.groups
        for role, counted in other.counted.items():
            self.counted[role].absorb(counted)
