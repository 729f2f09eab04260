"""What can be wrong with a text."""

from __future__ import annotations

import random

from workflow.results import Drawn
from workflow.text_counts import LEAST, LONGEST, TIMES, Counted, loops


def naive_loops(text: str) -> bool:
    """Every length of a unit, one after another."""
    for unit in range(1, LONGEST + 1):
        whole = max(TIMES * unit, LEAST)
        if len(text) >= whole and all(text[-i] == text[-i - unit] for i in range(1, whole - unit + 1)):
            return True
    return False


def test_loops() -> None:
    chance, found = random.Random(8), 0
    for _ in range(1500):
        unit = "".join(chance.choices("ab好", k=chance.choice([1, 2, 3, 7, 8, 9, 30, 199, 200, 201])))
        text = "".join(chance.choices("ab", k=20)) + unit * chance.randrange(1, 7)
        text = text[: len(text) - chance.randrange(9)]
        if chance.random() < 0.2:
            place = chance.randrange(len(text) or 1)
            text = text[:place] + "c" + text[place + 1 :]
        assert loops(text) == naive_loops(text), text
        found += loops(text)
    assert 200 < found < 1300
    assert not any(
        map(loops, ["", "a", "......", "哈哈哈哈", "-" * 31, "a b c d e f g h i j k l m n o p q r s t u v w"])
    )
    assert loops("-" * 32) and loops("I do not know. " * 4) and not loops("I do not know. " * 3)


def test_texts_are_counted() -> None:
    one, other = Counted(), Counted()
    one.add([Drawn(text=" \n", finish_reason="stop"), Drawn(text="ab" * 40, finish_reason="length")], 2)
    other.add([Drawn(text="", finish_reason="stop")], None)
    other.absorb(one)
    found = {"texts": 3, "empty": 2, "cut": 1, "loops": 1, "abstained": 2}
    assert other.result().model_dump() == found
