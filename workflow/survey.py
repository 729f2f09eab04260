"""What there is to ask: each row's prompt, what its answer is held to, and what of both decides a draw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from workflow.draws import Draws, prompt_digest
from workflow.engine import Question, seed_of
from workflow.errors import BuildError
from workflow.examples import examples_of
from workflow.prompts import Message, PromptTemplate
from workflow.recipe.answers import Sampling
from workflow.recipe.engines import Endpoint
from workflow.results import AskedRow
from workflow.store.build import Job
from workflow.tokenizing import Tokenizing
from workflow.tokens import read_rows

ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Survey:
    """What must be known of all rows before the first is asked."""

    prompts: dict[str, str]  # row id -> digest of what it is asked
    longest: str = ""
    longest_tokens: int = 0


class Prompted(NamedTuple):
    """A row as it is asked; see `Question`."""

    row: str
    prompt: list[int]
    choices: list[str] | None
    messages: list[Message] | None

    @property
    def digest(self) -> str:
        """Digest of what is asked: token ids, or messages; and choices where they are the row's own."""
        asked: Any = self.prompt if self.messages is None else self.messages
        return prompt_digest(asked if self.choices is None else [asked, *self.choices])


def sampling_of(job: Job) -> Sampling:
    """What the job is asked, with the path of the JSON Schema, whose content alone is in its slice."""
    asked = dict(job.slice["sampling"])
    if "json_schema" in job.sources:
        asked["constraint"] = {"json_schema": str(job.sources["json_schema"])}
    return Sampling.model_validate(asked)


def prompted(job: Job, sampling: Sampling) -> Iterator[Prompted]:
    """All rows, in the order of the shards (by id).

    Raises:
        BuildError: A row has no options to choose from, or is not what would be sent as messages.
    """
    lines = _lines(job.inputs["rows"]) if "rows" in job.inputs else repeat(b"")
    messages = _Messages(job) if isinstance(sampling.engine, Endpoint) and "prompt" in job.slice else None
    own = sampling.constraint is not None and sampling.constraint.choice == "options"
    for row, line in zip(read_rows(job.inputs["shards"]), lines, strict=False):
        if line and orjson.loads(line)["id"] != row.id:
            raise BuildError(
                f"{job.inputs['shards']}: row {row.id!r} is not the next one of its rows; build again"
            )
        if messages and row.outcome == "truncated":
            raise BuildError(
                f"row {row.id!r} was cut to the limits of section prompt, which `api: chat` cannot be sent; "
                "raise them or use `api: completions`"
            )
        ids: list[int] = row.input_ids[: row.prompt_tokens].tolist()
        yield Prompted(row.id, ids, _options(line) if own else None, messages.of(line) if messages else None)


def _lines(rows: Path) -> Iterator[bytes]:
    with (rows / ROWS).open("rb") as file:
        yield from file


def _options(line: bytes) -> list[str]:
    row = AskedRow.model_validate_json(line)
    if not row.letters:
        raise BuildError(
            f"sampling.constraint.choice: {row.id!r} has no options; give a list of texts or leave it out"
        )
    return list(row.letters)


class _Messages:
    """Messages as the shards' own were made: same template, same history, same examples."""

    def __init__(self, job: Job):
        template = PromptTemplate(job.sources["template"])
        examples = examples_of(job.slice["prompt"], job.inputs)
        self._tokenizing = Tokenizing(job.slice["prompt"], template, job.inputs["tokenizer"], False, examples)

    def of(self, line: bytes) -> list[Message]:
        (asked,) = self._tokenizing.asked([line])
        return asked.messages


def look_through(rows: Iterator[Prompted], place: Path) -> Survey:
    """Digest every prompt and find the longest.

    Args:
        rows: The rows.
        place: Where they are, for messages.

    Raises:
        BuildError: A prompt is empty, or two rows have one id.
    """
    prompts: dict[str, str] = {}
    longest, most = "", 0
    for row in rows:
        if not row.prompt:
            raise BuildError(f"{place}: row {row.row!r} has an empty prompt; correct the template or the row")
        if row.row in prompts:
            raise BuildError(f"{place}: two rows have the id {row.row!r}; build again")
        prompts[row.row] = row.digest
        if len(row.prompt) > most:
            longest, most = row.row, len(row.prompt)
    return Survey(prompts, longest, most)


def questions(rows: Iterator[Prompted], draws: Draws, sampling: Sampling) -> Iterator[Question]:
    """One for each missing draw, with the seed that it has in a run from nothing."""
    same = held_to(sampling)
    for row in rows:
        held = {"choice": row.choices} if row.choices else same
        for draw in draws.missing(row.row):
            seed = seed_of(draws.wanted.seed, row.row, draw)
            yield Question(row.row, draw, row.prompt, seed, held, row.messages)


def held_to(sampling: Sampling) -> dict[str, Any] | None:
    """What all answers are held to, as in `Question`; None where each row says it, or nothing does.

    Raises:
        BuildError: The file with the schema is no JSON object.
    """
    constraint = sampling.constraint
    if constraint is None or constraint.choice == "options":
        return None
    if constraint.json_schema:
        return {"json": _schema(Path(constraint.json_schema))}
    return {"choice": constraint.choice} if constraint.choice else {"regex": constraint.regex}


def _schema(path: Path) -> dict[str, Any]:
    import jsonschema_rs

    try:
        schema = json.loads(path.read_bytes())
        jsonschema_rs.meta.validate(schema)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BuildError(f"sampling.constraint.json_schema: {path}: no JSON Schema ({reason})") from None
    if not isinstance(schema, dict):
        raise BuildError(
            f"sampling.constraint.json_schema: {path}: no JSON object; true and false hold nothing"
        )
    return schema
