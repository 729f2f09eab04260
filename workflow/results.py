"""What voting and scoring read and write, line by line: rows, predictions, voted lines, the scores."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, NamedTuple, Protocol, TypeVar

import msgspec
from pydantic import Field, ValidationError

from workflow.curves import Curves
from workflow.errors import BuildError
from workflow.measures import Likelihood, Measured, Test, TextCounts, TextMetric
from workflow.record import Result, View

PREDICTIONS, VOTED, SCORES = "predictions.jsonl", "voted.jsonl", "scores.json"
SUBMISSION, ITEMS, LIKELIHOOD = "submission.jsonl", "items.jsonl", "likelihood.jsonl"


class AskedRow(View, frozen=True, gc=False):
    """One line of rows.jsonl: what was asked.

    `group` is the problem that the row is a question of, `index` the question's position in it, from 0 (None:
    it has none), `turns` the conversation of such rows, `gold` the accepted answers, where any is known.
    """

    id: str
    prompt: dict[str, Any]
    group: str | None = None
    index: Annotated[int, msgspec.Meta(ge=0)] | None = 0
    turns: list[dict[str, Any]] = []
    gold: list[str] = []

    @property
    def asked(self) -> dict[str, Any]:
        """All that is shown before the answer: the prompt, and the turns before the last."""
        before = [turn["content"] for turn in self.turns[:-1]]
        return {**self.prompt, "turns": before} if before else self.prompt

    @property
    def letters(self) -> str | None:
        """Letters of the row's options, `ABCD` for four; None for a row without options."""
        options = self.prompt.get("options")
        return ascii_uppercase[: len(options)] if isinstance(options, list) else None


class Drawn(View, frozen=True, gc=False):
    """One text that a model gave.

    `finish_reason` is `stop`, or `length` when max_tokens ended it; `logprob` the mean log-probability of its
    tokens, None where it was not recorded.
    """

    text: str
    finish_reason: str | None = None
    logprob: float | None = None


class Prediction(View, frozen=True, gc=False):
    """One line of predictions.jsonl: all draws of a row, in order; the first is draw 0."""

    id: str
    draws: Annotated[list[Drawn], msgspec.Meta(min_length=1)]


class LikelyRow(Result):
    """One line of likelihood.jsonl: what a model makes of the known answer to a row."""

    id: str = Field(description="Row id.")
    tokens: int = Field(description="Tokens that count: the answer's, and its stop token.", ge=1)
    loss: float = Field(description="Sum of their negative log-likelihoods, in nats.", ge=0)


class VotedLine(Result):
    """One line of voted.jsonl: a row, its votes and what they decided."""

    id: str = Field(description="Row id.")
    answer: str | None = Field(
        description="The voted answer. null: every draw abstained, or answers tied and `ties: abstain`."
    )
    votes: dict[str, int] = Field(
        description="Answer -> number of draws that gave it, of all voters, sorted by answer; without "
        "abstentions."
    )
    weights: dict[str, float] | None = Field(
        default=None,
        description="Answer -> sum of its votes' weights, sorted by answer; null: every vote counts one.",
    )
    abstentions: int = Field(description="Draws without a valid answer.", ge=0)
    agreement: float = Field(
        description="Share of all draws (or of their weight), abstentions included, that gave the voted "
        "answer; 0 without one.",
        ge=0,
        le=1,
    )
    tie: bool = Field(
        description="Whether several answers had most votes (or weight), however it was resolved."
    )
    gold: list[str] = Field(description="Accepted answers; empty where none is known: not scored.")
    correct: bool | None = Field(
        description="Whether answer is among gold (no answer is wrong); null where gold is unknown."
    )


class Item(Result):
    """One line of items.jsonl: what each system's answer to a scored row is worth."""

    id: str = Field(description="Row id.")
    group: str | None = Field(description="The problem that the row belongs to; null: it is one by itself.")
    values: dict[str, dict[str, float]] = Field(
        description="Metric -> system (base, greedy, draws, single, voted, as far as the metric has them) -> "
        "value from 0 to 1, higher is better; `draws`: mean over the row's draws."
    )


class Scores(Result):
    """scores.json: what the predictions of a recipe are worth."""

    rows: int = Field(description="Rows of the test split.", ge=1)
    scored: int = Field(description="Rows with a known gold answer.", ge=0)
    draws: int = Field(description="Draws per row.", ge=1)
    problems: int = Field(
        default=0, description="Problems that the scored rows belong to; what resamples are drawn from.", ge=0
    )
    texts: dict[str, TextCounts] = Field(
        default={}, description="base, greedy, draws: what can be wrong with a text, counted over all rows."
    )
    majority_answer: str | None = Field(
        default=None,
        description="What majority_class always answers: the most frequent gold answer of the scored rows, "
        "the first in the alphabet among equals; null when nothing is scored.",
    )
    systems: dict[str, Measured] = Field(
        description="Accuracy. majority_class: one answer to every row; base: the untuned model, greedy "
        "(only when compared); greedy: the recipe's model, greedy; draws: mean over all draws; single: the "
        "first draw alone; voted: the vote of all draws. Empty without gold answers or without this metric."
    )
    tests: dict[str, Test] = Field(
        description="greedy_vs_base: the gain of tuning; voted_vs_single: of voting, against the first "
        "draw; voted_vs_greedy: of drawing and voting, against greedy. Empty when nothing is scored."
    )
    text_metrics: dict[str, TextMetric] = Field(
        default={}, description="Metrics of texts, as far as the recipe asks for them."
    )
    likelihood: Likelihood | None = Field(
        default=None, description="Loss and perplexity of the known answers; null: not asked for."
    )
    curves: Curves | None = Field(
        default=None, description="What votes of fewer draws would be worth; null without votes or gold."
    )


class Identified(Protocol):
    """A record of one row."""

    @property
    def id(self) -> str:
        """Row id."""


M = TypeVar("M")


class Span(NamedTuple):
    """Some lines of a file."""

    begin: int = 0  # bytes before them
    first: int = 1  # number of the first
    lines: int = sys.maxsize
    before: int = -1  # bytes before the line before them; negative: there is none


BUFFER = 1 << 18
"""Bytes read at a time: a line of many draws has kilobytes."""
PART = 2000
"""Rows that are worked on at a time, by one process."""


def parts(paths: Sequence[Path]) -> list[tuple[Span, ...]]:
    """The same rows of several files, `PART` at a time: for each part the lines of each file.

    Raises:
        BuildError: A file is missing.
    """
    spans = [list(_spans(path)) for path in paths]
    return list(zip_longest(*spans, fillvalue=Span(lines=0)))


def _spans(path: Path) -> Iterator[Span]:
    place = begin = last = number = 0
    before = -1
    try:
        with path.open("rb", BUFFER) as file:
            for number, line in enumerate(file, start=1):
                if number % PART == 1 and number > 1:
                    yield Span(begin, number - PART, PART, before)
                    begin, before = place, last
                last, place = place, place + len(line)
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file; build the product that makes it again") from None
    if number:
        yield Span(begin, (number - 1) // PART * PART + 1, PART, before)


def read_records(path: Path, model: type[M], span: Span = Span()) -> Iterator[M]:  # noqa: B008
    """The lines of a JSON lines file that is sorted by id, one at a time.

    Every line is validated by its model; where there is a JSON Schema generated from it, that says the same,
    but the package jsonschema needs 0.4 ms a line, minutes for what takes seconds here.

    Raises:
        BuildError: The file is missing, a line does not fit, or ids are not in strictly rising order.
    """
    before = None
    try:
        with path.open("rb", BUFFER) as file:  # in binary a line ends at \n alone, as JSON lines ask
            if span.before >= 0:
                file.seek(span.before)
                before = _record(file.readline(), model, path, span.first - 1).id
            file.seek(span.begin)
            for number, line in enumerate(islice(file, span.lines), start=span.first):
                record = _record(line, model, path, number)
                if before is not None and record.id <= before:
                    raise BuildError(
                        f"{path}:{number}: {record.id!r} after {before!r} is not sorted; build again"
                    )
                before = record.id
                yield record
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file; build the product that makes it again") from None


def _record(line: bytes, model: Any, path: Path, number: int) -> Any:
    try:
        if issubclass(model, Result):
            return model.model_validate_json(line, strict=True)
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole line"
        raise BuildError(f"{path}:{number}: damaged ({where}: {first['msg']}); build it again") from None
    except ValueError as error:
        raise BuildError(f"{path}:{number}: damaged ({error}); build it again") from None


def read_together(
    *files: tuple[Path, type[Any]], part: Sequence[Span] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Records of several files row by row, one per file; they must be about the same rows.

    Memory is that of one row, since all are sorted by id.

    Args:
        files: Where they are, and what.
        part: One of `parts`, if not all are wanted.

    Raises:
        BuildError: A row is in one file and not in another, or a file is damaged.
    """
    spans = part or [Span()] * len(files)
    readers = (read_records(path, model, span) for (path, model), span in zip(files, spans, strict=True))
    for records in zip_longest(*readers):
        if any(record is None or record.id != records[0].id for record in records):
            raise BuildError(_missing([path for path, _ in files], records))
        yield records


def _missing(paths: list[Path], records: tuple[Identified | None, ...]) -> str:
    first = min(record.id for record in records if record)
    have = [path for path, record in zip(paths, records, strict=True) if record and record.id == first]
    lack = [path for path in paths if path not in have]
    return (
        f"{lack[0]}: nothing about row {first!r}, which {have[0]} has; they must be of one split: build again"
    )
