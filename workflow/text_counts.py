"""What can be wrong with a text, counted: it is empty, cut, without an answer, or goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from workflow.measures import TextCounts
from workflow.results import Drawn

LONGEST, TIMES, LEAST = 200, 4, 32
"""Characters of a unit at most, repetitions at least, and characters of all of them at least."""
_KEY = 8


def loops(text: str) -> bool:
    """Whether a text ends in one unit of at most `LONGEST` characters, `TIMES` or more times over.

    So short a tail as `......` is none: it has `LEAST` characters. The last repetition may be cut anywhere.
    A unit's length is the distance between two places of the last few characters: nearly every text is done
    with when they are looked for once.
    """
    end = len(text) - _KEY
    if end + _KEY < LEAST:
        return False
    key, place = text[end:], end
    first = max(0, end - LONGEST)
    while (place := text.rfind(key, first, place + _KEY - 1)) >= 0:
        unit = end - place
        whole = max(TIMES * unit, LEAST)
        if len(text) >= whole and text[-whole:-unit] == text[unit - whole :]:
            return True
    return False


@dataclass
class Counted:
    """The texts of one system over all rows."""

    texts: int = 0
    empty: int = 0
    cut: int = 0
    loops: int = 0
    abstained: int | None = None

    def add(self, draws: Sequence[Drawn], abstained: int | None) -> None:
        """Count the texts of a row, and how many of them have no valid answer (None: none is read)."""
        self.texts += len(draws)
        for draw in draws:
            text = draw.text
            if not text or text.isspace():
                self.empty += 1
            elif len(text) >= LEAST and loops(text):
                self.loops += 1
            if draw.finish_reason == "length":
                self.cut += 1
        if abstained is not None:
            self.abstained = (self.abstained or 0) + abstained

    def absorb(self, other: Counted) -> None:
        """Add what another counted."""
        for name, number in asdict(other).items():
            if number is not None:
                setattr(self, name, (getattr(self, name) or 0) + number)

    def result(self) -> TextCounts:
        """As scores.json has it."""
        return TextCounts(**asdict(self))
