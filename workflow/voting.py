"""From texts to one answer: reading answers out of texts, and the vote of several."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workflow.errors import BuildError
from workflow.normalising import normalised
from workflow.patterns import compile_pattern, first_group
from workflow.results import AskedRow
from workflow.significance import rounded
from workflow.store.address import canonical

EQUAL = 1e-9
"""Share by which two sums of weights may differ and be equal: 0.1 + 0.2 is a tie with 0.3."""


@dataclass(frozen=True)
class Reader:
    """Reads the answer out of a text: the one group of an RE2 pattern, at its first or last match."""

    regexp: Any
    last: bool
    how: str = "none"
    words: Mapping[str, str] = field(default_factory=dict)  # normal form of a label word -> label

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Reader:
        """The reader that a slice's `answer` describes, as `recipe.answers.Answer` has it."""
        how = answer.get("normalise", "none")
        words = {normalised(word, how): label for word, label in answer.get("map", {}).items()}
        return cls(compile_pattern(answer["pattern"]), answer["match"] == "last", how, words)

    def read(self, text: str, letters: str | None) -> str | None:
        """The answer that `text` gives, white space around it removed, or None: it abstains.

        Only the chosen match counts. When it is not usable no other is tried, and nothing is guessed.

        Args:
            text: What the model wrote.
            letters: `ABCD` for a row with four options, the only valid answers then; None: any text is.
        """
        group = first_group(self.regexp, text.encode(), self.last)  # half the time of a str
        answer = (group or b"").decode(errors="replace").strip()  # `\C` may cut a character in two
        if not self._verbatim:
            return self._label(answer, letters)
        if letters is not None and (len(answer) != 1 or answer not in letters):
            return None
        return answer or None

    @cached_property
    def _verbatim(self) -> bool:
        return self.how == "none" and not self.words

    def _label(self, answer: str, letters: str | None) -> str | None:
        """The answer that an answer's normal form stands for."""
        form = normalised(answer, self.how)
        if self.words:
            label = self.words.get(form)
            if label is None or letters is None:
                return label
            form = normalised(label, self.how)
        if letters is None:
            return form or None
        return self._forms(letters).get(form)

    def _forms(self, labels: Sequence[str]) -> dict[str, str]:
        """Normal form -> label."""
        return {normalised(label, self.how): label for label in labels}

    def accepted(self, row: AskedRow) -> set[str]:
        """The gold answers of a row as `read` would give them.

        Raises:
            BuildError: One has no normal form, so that no answer could ever be it.
        """
        if self._verbatim:
            return set(row.gold)
        labels = row.letters if row.letters is not None else [*self.words.values()]
        known, found = self._forms(labels), set()
        for gold in row.gold:
            form = normalised(gold, self.how)
            if not form:
                raise BuildError(
                    f"row {row.id!r}: the gold answer {gold!r} is no {self.how}; correct the row or "
                    "voting.answer.normalise"
                )
            found.add(known.get(form, form))
        return found


@dataclass(frozen=True)
class Vote:
    """What the draws of one row decided; `VotedLine` describes the fields."""

    answer: str | None
    votes: dict[str, int]
    weights: dict[str, float] | None
    abstentions: int
    agreement: float
    tie: bool


@dataclass(frozen=True)
class Ties:
    """What several answers with most votes become."""

    how: str  # first, seeded or abstain
    seed: int = 0

    def resolve(self, winners: Sequence[str], row: str) -> str | None:
        """One of the winners, which are in the order first drawn, or None.

        `seeded` chooses by a hash of the seed, the row's id and the answer: neither the order of the draws
        nor the alphabet favours any.
        """
        if len(winners) < 2 or self.how == "first":
            return winners[0] if winners else None
        if self.how == "abstain":
            return None
        return min(winners, key=lambda answer: hashlib.blake2b(canonical([self.seed, row, answer])).digest())


def vote(
    answers: Sequence[str | None], ties: Ties, row: str = "", weights: Sequence[float] | None = None
) -> Vote:
    """The vote on a row's draws; the majority as in self-consistency (Wang et al. 2023, arXiv:2203.11171, 2).

    An abstention is no vote. `votes` does not depend on the order of the draws.

    Args:
        answers: One per draw, in the order drawn; None for a draw that abstained. At least one.
        ties: What several answers with most votes become.
        row: The row's id, which `seeded` ties go by.
        weights: What each draw's vote counts, not negative; None: all the same.
    """
    votes: dict[str, int] = {}  # in the order first drawn
    for given in answers:
        if given is not None:
            votes[given] = votes.get(given, 0) + 1
    counted: Mapping[str, float] = votes if weights is None else _sums(answers, weights, votes)
    most = max(counted.values(), default=0)
    winners = [answer for answer, count in counted.items() if count >= most * (1 - EQUAL) > 0]
    answer = winners[0] if len(winners) == 1 else ties.resolve(winners, row)
    total = len(answers) if weights is None else math.fsum(weights)
    return Vote(
        answer=answer,
        votes=dict(sorted(votes.items())),
        weights=None if weights is None else {name: rounded(counted[name]) for name in sorted(votes)},
        abstentions=len(answers) - sum(votes.values()),
        agreement=min(1.0, most / total) if answer is not None else 0.0,
        tie=len(winners) > 1,
    )


def _sums(
    answers: Sequence[str | None], weights: Sequence[float], votes: Mapping[str, int]
) -> dict[str, float]:
    """Answer -> sum of its weights, without the error of adding one by one."""
    return {
        answer: math.fsum(w for given, w in zip(answers, weights, strict=True) if given == answer)
        for answer in votes
    }
