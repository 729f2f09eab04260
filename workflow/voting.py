"""From texts to one answer: reading answers out of texts, and the majority of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflow.patterns import compile_pattern


@dataclass(frozen=True)
class Reader:
    """Reads the answer out of a text: the one group of an RE2 pattern, at its first or last match."""

    regexp: Any
    last: bool

    @classmethod
    def of(cls, answer: dict[str, str]) -> Reader:
        """The reader that a slice's `answer`, `{"pattern": RE2, "match": "first" | "last"}`, describes."""
        return cls(compile_pattern(answer["pattern"]), answer["match"] == "last")

    def read(self, text: str, letters: str | None) -> str | None:
        """The answer that `text` gives, white space around it removed, or None: it abstains.

        Only the chosen match counts. When it is not usable no other is tried, and nothing is guessed.

        Args:
            text: What the model wrote.
            letters: `ABCD` for a row with four options, the only valid answers then; None: any text is.
        """
        chosen = None
        for match in self.regexp.finditer(text.encode()):  # half the time of a str: no offsets to convert
            chosen = match
            if not self.last:
                break
        group = chosen[1] if chosen else None
        answer = (group or b"").decode(errors="replace").strip()  # `\C` may cut a character in two
        if letters is not None and (len(answer) != 1 or answer not in letters):
            return None
        return answer or None


@dataclass(frozen=True)
class Vote:
    """What the draws of one row decided; `VotedLine` describes the fields."""

    answer: str | None
    votes: dict[str, int]
    abstentions: int
    agreement: float
    tie: bool


def vote(answers: Sequence[str | None], ties: str) -> Vote:
    """The majority of a row's draws, as in self-consistency (Wang et al. 2023, arXiv:2203.11171, 2).

    An abstention is no vote. `ties` says what several answers with most votes become: `first`, the one of
    them that was drawn first; `abstain`, no answer. `votes` does not depend on the order of the draws.

    Args:
        answers: One per draw, in the order drawn; None for a draw that abstained. At least one.
        ties: `first` or `abstain`.
    """
    votes: dict[str, int] = {}  # in the order first drawn
    for given in answers:
        if given is not None:
            votes[given] = votes.get(given, 0) + 1
    most = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == most]
    answer = winners[0] if len(winners) == 1 or (winners and ties == "first") else None
    return Vote(
        answer=answer,
        votes=dict(sorted(votes.items())),
        abstentions=len(answers) - sum(votes.values()),
        agreement=most / len(answers) if answer is not None else 0.0,
        tie=len(winners) > 1,
    )
