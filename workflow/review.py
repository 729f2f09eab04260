"""The blind review sheet: what people see of two arms, and what their preferences say."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from workflow.errors import BuildError

COLUMNS = ("number", "check", "prompt", "answer A", "answer B", "preference")
SHEET, PAGE, KEY = "review.csv", "review.html", "key.json"
CHOICES = {"a": "A", "b": "B", "tie": "tie", "": ""}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
ONE, OTHER, TIE = "one", "other", "tie"


@dataclass(frozen=True)
class Asked:
    """One line of the sheet; `a` says which arm answer A is of: `one` or `other`."""

    check: str
    prompt: str
    answers: tuple[str, str]
    a: str


def sheet(lines: list[Asked]) -> str:
    """The sheet as CSV, with an empty column to fill in; nothing in it tells which arm is which."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, line in enumerate(lines, start=1):
        texts = [
            text if not text.startswith(FORMULA) else f"'{text}" for text in (line.prompt, *line.answers)
        ]
        writer.writerow([number, line.check, *texts, ""])
    return out.getvalue()


@dataclass(frozen=True)
class Preferences:
    """How often people preferred which: `one` is the baseline."""

    one: int
    other: int
    ties: int
    unjudged: int

    @property
    def decided(self) -> int:
        """Answers that were not judged equal."""
        return self.one + self.other


def judged(path: Path, key: Mapping[str, str]) -> Preferences:
    """Read a filled-in sheet.

    Args:
        path: The sheet, CSV as it was published, with the last column filled in.
        key: `check` of each line -> the arm that answer A is of.

    Raises:
        BuildError: It is of other answers, a line is there twice, or a preference is unknown; with its line.
    """
    counts: Counter[str] = Counter()
    seen: dict[str, int] = {}
    for line, record in _records(path):
        check, given = record["check"].strip(), record["preference"].strip()
        if check not in key:
            raise BuildError(
                f"{path}:{line}: check {check!r} is of no line of this review: the sheet is of other answers"
            )
        if check in seen:
            raise BuildError(f"{path}:{line}: judged twice, first in line {seen[check]}; keep one of them")
        seen[check] = line
        choice = CHOICES.get(given.casefold())
        if choice is None:
            raise BuildError(
                f"{path}:{line}: preference {given!r} is none of A, B, tie (or nothing: not judged)"
            )
        counts[_arm(choice, key[check])] += 1
    return Preferences(counts[ONE], counts[OTHER], counts[TIE], counts[""] + len(key) - len(seen))


def _arm(choice: str, a: str) -> str:
    """The arm that was preferred."""
    if choice in ("A", "B"):
        return a if choice == "A" else {ONE: OTHER, OTHER: ONE}[a]
    return choice


def _records(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line in the file and record of each answer; a spreadsheet may have written `;` or a byte order mark."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    columns = next(reader, [])
    if missing := [name for name in ("check", "preference") if name not in columns]:
        raise BuildError(f"{path}:1: no column {', '.join(missing)}; fill in the sheet that was published")
    before = reader.line_num
    for cells in reader:
        if any(cells):
            if len(cells) != len(columns):
                raise BuildError(
                    f"{path}:{before + 1}: {len(cells)} columns, not {len(columns)}; is a quote missing?"
                )
            yield before + 1, dict(zip(columns, cells, strict=True))
        before = reader.line_num


def wilson(share: int, n: int, z: float = 1.959963985) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927), which is honest for small n."""
    p = share / n
    middle, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, (middle - spread) / (1 + z * z / n)), min(1.0, (middle + spread) / (1 + z * z / n))
