"""GSM8K's word problems: worked steps, then `#### number` (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from workflow.formats.record import text_of
from workflow.formats.row import BadRow, Row
from workflow.recipe.formats import Gsm8kSource

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_ANNOTATION = re.compile(r"<<[^<>]*>>")


def rows(record: Any, source: Gsm8kSource) -> Iterator[Row]:
    """One row per record: `question`; `solution` (the steps) and `answer` (the number, without commas).

    Raises:
        BadRow: A field is missing, or the answer does not end in `#### number`.
    """
    question, answer = text_of(record, "question"), text_of(record, "answer")
    steps, mark, last = answer.rpartition("####")
    number = last.strip().replace(",", "").removeprefix("$")
    if not mark or not _NUMBER.fullmatch(number):
        raise BadRow(f"answer: must end in `#### number`, not in {answer[-20:]!r}")
    if source.calculator == "drop":
        steps = _ANNOTATION.sub("", steps)
    target = {"solution": steps.rstrip("\n"), "answer": number}
    yield Row(prompt={"question": question}, target=target, gold=[number])
