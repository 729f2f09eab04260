"""Seeded digit puzzles in the shape of Datawhale's round-1 rows.

A puzzle starts from a digit and applies a chain of additions and
multiplications, keeping only the last digit after each step::

    小明从3开始，第一步加4，第二步乘2，第三步加9。
    每步只留个位，最后得几？
    A. 0到2   B. 3到4   C. 5到7   D. 8到9

The worked answer repeats every step: ``3加4得7。7乘2得4。4加9得3。答案是：B``.
A step takes six characters both in the puzzle and in the worked answer, so
that a tiny model finds the next step at a constant distance; it then learns
the task within a minute on two cores, which look-ups over shuffled facts do not.

Rows depend only on the arguments: the module uses ``random.Random`` with an
integer or text seed and ``hashlib``, and never the order of a set or ``hash``.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "test"]
Row = dict[str, Any]

NAMES = ("小明", "小红", "小刚", "小丽", "小华", "小军")
ORDINALS = "一二三四五六七八九"
RANGES = ((0, 2), (3, 4), (5, 7), (8, 9))
QUESTION = "每步只留个位，最后得几？"
TEST_SHARE = 10  # one chain in ten belongs to the test split

_START = re.compile(r"从(\d)开始")
_STEP = re.compile(r"步(加|乘)(\d)")
_RANGE = re.compile(r"^(\d)到(\d)$")


@dataclass(frozen=True)
class Chain:
    """A start digit and the steps applied to it.

    Attributes:
        start: The first digit, 0 to 9.
        steps: Pairs of operation (``加`` adds, ``乘`` multiplies) and operand.
    """

    start: int
    steps: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        """The chain in words, without the person's name: what makes two puzzles equal."""
        steps = "，".join(f"第{ORDINALS[i]}步{op}{operand}" for i, (op, operand) in enumerate(self.steps))
        return f"从{self.start}开始，{steps}。"

    @property
    def split(self) -> Split:
        """The split the chain belongs to, a function of its text alone."""
        digest = hashlib.blake2b(self.text.encode(), digest_size=8).digest()
        return "train" if int.from_bytes(digest, "big") % TEST_SHARE else "test"

    def states(self) -> list[int]:
        """Return the digit before the first step and after each one."""
        states = [self.start]
        for op, operand in self.steps:
            states.append(apply(op, states[-1], operand))
        return states


def apply(op: str, digit: int, operand: int) -> int:
    """Return the last digit of one operation.

    Args:
        op: ``加`` or ``乘``.
        digit: The digit so far, 0 to 9.
        operand: The number of the step, 1 to 9.

    Raises:
        ValueError: If the operation is unknown.
    """
    if op == "加":
        return (digit + operand) % 10
    if op == "乘":
        return digit * operand % 10
    raise ValueError(f"unknown operation {op!r}: expected 加 or 乘")


def puzzles(
    count: int,
    seed: int,
    split: str,
    steps: tuple[int, int] = (5, 5),
    factors: tuple[int, int] = (2, 9),
) -> Iterator[Row]:
    """Yield distinct puzzles as round-1 rows, one question each.

    A chain belongs to exactly one split whatever the seed, the number of steps
    or the factors, so a train and a test file never share a puzzle, not even
    under another person's name. Answer letters are drawn uniformly.

    Args:
        count: How many rows to yield.
        seed: Seed of the generator; the first rows do not depend on ``count``.
        split: ``train`` or ``test``.
        steps: Smallest and largest number of steps, both included, within 1 to 9.
        factors: Smallest and largest factor of a multiplication, within 1 to 9.

    Yields:
        Rows ``{"problem", "questions": [{"question", "options", "answer",
        "reasoning"}], "id"}``.

    Raises:
        ValueError: If an argument is out of range, or no new puzzle is found.
    """
    _check(split, steps, factors)
    rng = random.Random(f"puzzles {split} {seed}")
    seen: set[str] = set()
    for index in range(count):
        chain = _new_chain(rng, split, steps, factors, seen)
        seen.add(chain.text)
        yield _row(chain, rng.choice(NAMES), f"puzzle_{split}_{seed}_{index:05d}")


def solve(row: Row) -> list[str]:
    """Return the right letter of each question, worked out from its text.

    Neither ``answer`` nor ``reasoning`` is read: a check on the generator.

    Args:
        row: A row made by `puzzles`.

    Raises:
        ValueError: If the problem or the options cannot be read.
    """
    problem = row["problem"]
    start = _START.search(problem)
    if start is None:
        raise ValueError(f"no start digit in {problem!r}")
    digit = int(start[1])
    for op, operand in _STEP.findall(problem):
        digit = apply(op, digit, int(operand))
    return [_letter(digit, question["options"]) for question in row["questions"]]


def _check(split: str, steps: tuple[int, int], factors: tuple[int, int]) -> None:
    """Raise ValueError for arguments outside their documented ranges."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: expected train or test")
    for name, (low, high) in (("steps", steps), ("factors", factors)):
        if not 1 <= low <= high <= 9:
            raise ValueError(f"{name} is {(low, high)}: expected 1 <= first <= second <= 9")


def _new_chain(
    rng: random.Random,
    split: str,
    steps: tuple[int, int],
    factors: tuple[int, int],
    seen: set[str],
) -> Chain:
    """Return an unseen chain of the split whose answer is a uniformly drawn letter."""
    low, high = rng.choice(RANGES)
    for _ in range(100_000):
        chain = _chain(rng, rng.randint(*steps), factors)
        if low <= chain.states()[-1] <= high and chain.split == split and chain.text not in seen:
            return chain
    raise ValueError(f"no new puzzle left with steps {steps} and factors {factors}")


def _chain(rng: random.Random, length: int, factors: tuple[int, int]) -> Chain:
    """Return a random chain; additions and multiplications are equally likely."""
    drawn = []
    start = rng.randrange(10)
    for _ in range(length):
        op = rng.choice("加乘")
        drawn.append((op, rng.randint(*factors) if op == "乘" else rng.randint(1, 9)))
    return Chain(start, tuple(drawn))


def _row(chain: Chain, name: str, identity: str) -> Row:
    """Return the round-1 row of a chain."""
    states = chain.states()
    options = [f"{low}到{high}" for low, high in RANGES]
    answer = _letter(states[-1], options)
    worked = "".join(
        f"{before}{op}{operand}得{after}。"
        for (op, operand), before, after in zip(chain.steps, states, states[1:], strict=False)
    )
    question = {
        "question": QUESTION,
        "options": options,
        "answer": answer,
        "reasoning": f"{worked}答案是：{answer}",
    }
    return {"problem": name + chain.text, "questions": [question], "id": identity}


def _letter(digit: int, options: list[str]) -> str:
    """Return the letter of the one range that holds the digit.

    Raises:
        ValueError: If an option is no range, or not exactly one range holds the digit.
    """
    holding = []
    for letter, option in zip("ABCDEFG", options, strict=False):
        found = _RANGE.match(option)
        if found is None:
            raise ValueError(f"option {option!r} is no range such as 3到4")
        if int(found[1]) <= digit <= int(found[2]):
            holding.append(letter)
    if len(holding) != 1:
        raise ValueError(f"digit {digit} lies in {len(holding)} of the options {options}")
    return holding[0]
