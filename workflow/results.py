"""What voting and scoring read and write, line by line: rows, predictions, voted lines, the scores."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError

from workflow.curves import Curves
from workflow.errors import BuildError
from workflow.measures import Likelihood, Measured, Test, TextCounts, TextMetric
from workflow.record import Result, View

PREDICTIONS, VOTED, SCORES = "predictions.jsonl", "voted.jsonl", "scores.json"
SUBMISSION, ITEMS, LIKELIHOOD = "submission.jsonl", "items.jsonl", "likelihood.jsonl"


class AskedRow(View):
    """One line of rows.jsonl: what was asked."""

    id: str = Field(description="Row id.")
    group: str | None = Field(default=None, description="The problem that the row is a question of.")
    index: int | None = Field(
        default=0, description="Position of the question in its problem, from 0; null: it has none.", ge=0
    )
    prompt: dict[str, Any] = Field(description="What the prompt may show.")
    turns: list[dict[str, Any]] = Field(default=[], description="The conversation, of such rows.")
    gold: list[str] = Field(default=[], description="Accepted answers; empty where none is known.")

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


class Drawn(View):
    """One text that a model gave."""

    text: str = Field(description="The generated text.")
    finish_reason: str | None = Field(
        default=None, description="`stop`, or `length` when max_tokens ended it."
    )
    logprob: float | None = Field(
        default=None, description="Mean log-probability of the text's tokens; null: not recorded."
    )


class Prediction(View):
    """One line of predictions.jsonl: all draws of a row, in order."""

    id: str = Field(description="Row id.")
    draws: list[Drawn] = Field(description="The draws; the first is draw 0.", min_length=1)


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


M = TypeVar("M", bound=BaseModel)


def read_records(path: Path, model: type[M]) -> Iterator[M]:
    """The lines of a JSON lines file that is sorted by id, one at a time.

    Every line is validated by the pydantic model; the JSON Schema generated from it says the same, but the
    package jsonschema needs 0.4 ms a line, minutes for what takes pydantic seconds.

    Raises:
        BuildError: The file is missing, a line does not fit, or ids are not in strictly rising order.
    """
    before = None
    try:
        with path.open("rb") as file:  # in binary a line ends at \n alone, as JSON lines ask
            for number, line in enumerate(file, start=1):
                record: Any = _record(line, model, f"{path}:{number}")
                if before is not None and record.id <= before:
                    raise BuildError(
                        f"{path}:{number}: {record.id!r} after {before!r} is not sorted; build again"
                    )
                before = record.id
                yield record
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file; build the product that makes it again") from None


def _record(line: bytes, model: type[M], place: str) -> M:
    try:
        return model.model_validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole line"
        raise BuildError(f"{place}: damaged ({where}: {first['msg']}); build it again") from None


def read_together(*files: tuple[Path, type[Any]]) -> Iterator[tuple[Any, ...]]:
    """Records of several files row by row, one per file; they must be about the same rows.

    Memory is that of one row, since all are sorted by id.

    Raises:
        BuildError: A row is in one file and not in another, or a file is damaged.
    """
    for records in zip_longest(*(read_records(path, model) for path, model in files)):
        if len({record and record.id for record in records}) > 1:
            raise BuildError(_missing([path for path, _ in files], records))
        yield records


def _missing(paths: list[Path], records: tuple[Identified | None, ...]) -> str:
    first = min(record.id for record in records if record)
    have = [path for path, record in zip(paths, records, strict=True) if record and record.id == first]
    lack = [path for path in paths if path not in have]
    return (
        f"{lack[0]}: nothing about row {first!r}, which {have[0]} has; they must be of one split: build again"
    )
