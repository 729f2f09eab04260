"""Rows -> token rows within the recipe's limits: what one shard needs, and nothing about shards."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from workflow.bounds import shared_bounds
from workflow.chat import Chat
from workflow.errors import BuildError
from workflow.examples import Examples
from workflow.prompts import Message, PromptTemplate, Variants
from workflow.rendering import Renderer, Text
from workflow.tokens import TokenRow, digest_of_row


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens; None is no limit."""

    total: int | None
    source: int | None
    target: int | None

    def excess(self, prompt: int, answer: int) -> int:
        """Tokens of the prompt that are too many; more than the prompt has when the answer is too long."""
        over = 0
        if self.total is not None:
            over = max(over, prompt + answer - self.total)
        if self.source is not None:
            over = max(over, prompt - self.source)
        if self.target is not None and answer > self.target:
            over = max(over, prompt + answer)
        return over


class Asked(NamedTuple):
    """What a row's tokens are made of; the digest stands for all of it."""

    row: dict[str, Any]
    messages: list[Message]
    answers: list[int]
    """Places of the messages that the model is to learn."""
    digest: bytes

    @property
    def id(self) -> str:
        """The row's id."""
        return str(self.row["id"])


class Tokenizing:
    """Renders and tokenizes rows as one plan of `shards` asks."""

    def __init__(
        self,
        chosen: dict[str, Any],
        template: PromptTemplate | Variants,
        tokenizer: Path,
        fast: bool,
        examples: Examples | None = None,
    ):
        """Work by the slice `chosen` with the tokenizer in a folder, loaded when the first row needs it."""
        self.examples = examples
        self.chosen, self.train, self.overflow = chosen, chosen["split"] == "train", chosen["overflow"]
        self.limits = _limits(chosen, tokenizer)
        self.template, self._tokenizer, self._fast = template, tokenizer, fast

    @cached_property
    def renderer(self) -> Renderer:
        """The tokenizer with its chat template."""
        plain = self.chosen["chat_template"] == "plain"
        renderer = Renderer(self._tokenizer, self._fast, plain, self.chosen["stop"])
        gc.freeze()  # the libraries are here to stay: no collection need walk through them (a tenth faster)
        return renderer

    def asked(self, lines: Sequence[bytes]) -> list[Asked]:
        """What some lines of `rows.jsonl` ask, by the prompt template.

        Raises:
            BuildError: A row cannot be rendered.
        """
        with shared_bounds():
            rows = (last_rounds(self._row(line), self.chosen["history"]) for line in lines)
            return [self._asked(row) for row in rows]

    def _row(self, line: bytes) -> dict[str, Any]:
        """The row of a line; the source's own prompt is one without examples, by no other template."""
        row: dict[str, Any] = orjson.loads(line)
        if self.examples:
            row = self.examples.shown(row)
        other = self.examples or self.chosen.get("variant") or isinstance(self.template, Variants)
        return {**row, "rendered": None} if other else row

    def _asked(self, row: dict[str, Any]) -> Asked:
        messages = self._messages(row)
        answers = self._answers(row, messages)
        return Asked(row, messages, answers, digest_of_row(orjson.dumps([row["id"], messages, answers])))

    def _answers(self, row: dict[str, Any], messages: list[Message]) -> list[int]:
        """Places of the turns that the recipe trains on; of a test row those that come before the answer."""
        if not row["turns"] or self.chosen["train_on"] != "all_assistant":
            return [len(messages) - 1] if self.train else []
        first = len(messages) - len(row["turns"]) + (not self.train)
        turns = enumerate(row["turns"] if self.train else row["turns"][:-1], start=first)
        answers = [i for i, turn in turns if turn["role"] == "assistant" and turn.get("weight", 1)]
        if self.train and not answers:
            raise BuildError(f"row {row['id']}: every answer has weight 0; leave the row out")
        return answers

    def rows(self, asked: Sequence[Asked]) -> list[TokenRow]:
        """The token rows, those that are left out too.

        Raises:
            BuildError: A row cannot be rendered, or is over the limits and may not be changed.
        """
        if not asked:
            return []
        renderer = self.renderer
        with shared_bounds():
            texts = [renderer.text(one.messages, one.id, one.answers) for one in asked]
        rows = self._token_rows(texts, asked)
        over = [i for i, row in enumerate(rows) if self._excess(row)]
        for i in over:
            rows[i] = self._fit(rows[i], asked[i])
        return rows

    def _messages(self, row: dict[str, Any]) -> list[Message]:
        messages = self.template.messages(row, answer=self.train)
        rendered = row["rendered"]
        if rendered is not None:
            user = next(m["content"] for m in messages if m["role"] == "user")
            if user != rendered:
                raise BuildError(
                    f"row {row['id']}: the source's own prompt is not what {self.template.path.name} makes: "
                    f"{_difference(rendered, user)}"
                )
        return messages

    def _token_rows(self, texts: list[Text], asked: Sequence[Asked]) -> list[TokenRow]:
        """Rows of any length: all parts are encoded at once, and each row is a view of what comes of it."""
        parts = [text.parts for text in texts]
        encoded = self.renderer.encode(
            list(chain.from_iterable(parts)), [one.id for one, p in zip(asked, parts, strict=True) for _ in p]
        )
        answers = np.fromiter(chain.from_iterable(range(len(p)) for p in parts), np.int64) % 2 == 1
        stops = np.array([stop for text in texts for stop in text.stops], np.int64)
        there = stops >= 0
        ids = np.insert(encoded.ids, encoded.ends[answers][there], stops[there])
        lengths = np.diff(encoded.ends, prepend=0)
        lengths[answers] += there
        counts = np.ones_like(answers) if self.chosen["train_on"] == "all" else answers
        trained = np.repeat((counts & self.train).astype(np.uint8), lengths)
        ends = np.cumsum(lengths)
        last = np.cumsum([len(p) for p in parts]) - 1
        row_ends = ends[last]
        prompts = row_ends - np.where(answers[last], lengths[last], 0)
        begins = [0, *row_ends[:-1].tolist()]
        if self.train:
            self._prove(ids, trained, row_ends, asked)
        return [
            TokenRow(one.id, ids[a:b], trained[a:b], prompt - a)
            for one, a, b, prompt in zip(asked, begins, row_ends.tolist(), prompts.tolist(), strict=True)
        ]

    def _prove(
        self, ids: NDArray[np.int32], trained: NDArray[np.uint8], row_ends: Any, asked: Sequence[Asked]
    ) -> None:
        """Refuse rows without a trained token, and trained stretches that do not end where generation does.

        Whatever the renderer, the template and the tokenizer did, this looks at what came of it.
        """
        behind = np.append(trained[1:], 0).astype(np.uint8)
        behind[row_ends - 1] = 0
        ends = np.flatnonzero(trained > behind)
        of = np.searchsorted(row_ends, ends, side="right")
        rows_without = np.setdiff1d(np.arange(len(asked)), of)
        if len(rows_without):
            raise BuildError(f"row {asked[rows_without[0]].id}: no token of it is trained; leave the row out")
        for i in np.flatnonzero(~self._stops(ids, ends)):
            raise BuildError(
                f"row {asked[of[i]].id}: what is trained ends with "
                f"{self.renderer.backend.id_to_token(int(ids[ends[i]]))!r}, where no generation would stop; "
                "correct prompt.stop, or the stop tokens in the model's generation_config.json"
            )

    def _stops(self, ids: NDArray[np.int32], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether generation stops behind the tokens at these places."""
        if not self.chosen["stop"]:
            return np.isin(ids[ends], self.renderer.chat.stop_ids)
        stop = self.chosen["stop"]
        tails = [ids[max(0, end - len(stop.encode())) : end + 1].tolist() for end in ends]
        texts = self.renderer.backend.decode_batch(tails, skip_special_tokens=False)
        return np.array([text.endswith(stop) for text in texts], bool)

    def _excess(self, row: TokenRow) -> int:
        return self.limits.excess(row.prompt_tokens, len(row.input_ids) - row.prompt_tokens)

    def _fit(self, row: TokenRow, asked: Asked) -> TokenRow:
        """Apply the overflow policy to a row that is over a limit."""
        if self.overflow == "drop_oldest_turn":
            return self._newest_rounds(row, asked)
        if self.overflow == "drop":
            return self._left_out(row, asked)
        if self.overflow == "error" or self._excess(row) >= row.prompt_tokens:
            answer = len(row.input_ids) - row.prompt_tokens
            raise BuildError(
                f"row {row.id}: {row.prompt_tokens} prompt and {answer} answer tokens are over the limits of "
                "section prompt; raise them, or choose another `overflow`"
            )
        return self._truncated(row, asked)

    def _left_out(self, row: TokenRow, asked: Asked) -> TokenRow:
        if self.train:
            none = row.input_ids[:0], row.trained[:0]
            return TokenRow(row.id, *none, 0, "dropped", lost_answers=len(asked.answers))
        return replace(row, outcome="over_limit")

    def _newest_rounds(self, row: TokenRow, asked: Asked) -> TokenRow:
        """Leave out the oldest rounds, as many as needed; the row, if its last round alone is too long."""
        for kept in range(rounds(asked.row) - 2, -1, -1):
            fewer = self._asked(last_rounds(asked.row, kept))
            shorter = self._one(fewer)
            if not self._excess(shorter):
                cut = row.prompt_tokens - shorter.prompt_tokens
                lost = (len(asked.answers) - len(fewer.answers)) * self.train
                return replace(shorter, outcome="truncated", cut_tokens=cut, lost_answers=lost)
        return self._left_out(row, asked)

    def _truncated(self, row: TokenRow, asked: Asked) -> TokenRow:
        """Cut the last user message until the row fits; tokens at the cut may merge anew, so try again."""
        before, messages = row.prompt_tokens, asked.messages
        while excess := self._excess(row):
            user = max(i for i, m in enumerate(messages) if m["role"] == "user")
            content = self._cut(messages[user]["content"], excess, row.id)
            messages = [{**m, "content": content} if i == user else m for i, m in enumerate(messages)]
            row = self._one(asked._replace(messages=messages))
        return replace(row, outcome="truncated", cut_tokens=before - row.prompt_tokens)

    def _one(self, asked: Asked) -> TokenRow:
        text = self.renderer.text(asked.messages, asked.id, asked.answers)
        return self._token_rows([text], [asked])[0]

    def _cut(self, content: str, excess: int, row: str) -> str:
        offsets = self.renderer.backend.encode(content, add_special_tokens=False).offsets
        left = ""
        if excess < len(offsets) and self.overflow == "truncate_left":
            left = content[max(1, offsets[excess - 1][1]) :]  # whole characters: one may be several tokens
        elif excess < len(offsets):
            left = content[: min(len(content) - 1, offsets[-excess][0])]
        if not left:
            raise BuildError(f"row {row}: nothing of the user turn would be left; raise the limits")
        return left


def _limits(chosen: dict[str, Any], tokenizer: Path) -> Limits:
    total = chosen["max_length"]
    if total == "model":
        total = Chat.read(tokenizer).positions
        if total is None:
            raise BuildError("prompt.max_length: model, but its config.json names no length; give a number")
    return Limits(total, chosen["max_source_length"], chosen["max_target_length"])


def rounds(row: dict[str, Any]) -> int:
    """How many rounds a conversation has; each begins with a turn of the user."""
    return sum(turn["role"] == "user" for turn in row["turns"])


def last_rounds(row: dict[str, Any], kept: int | None) -> dict[str, Any]:
    """The row with `kept` rounds before the last one."""
    if kept is None or rounds(row) <= kept + 1:
        return row
    begins = [i for i, turn in enumerate(row["turns"]) if turn["role"] == "user"]
    return {**row, "turns": row["turns"][begins[-kept - 1] :]}


def _difference(wanted: str, found: str) -> str:
    position = len(commonprefix([wanted, found]))
    around = slice(max(0, position - 10), position + 20)
    return f"at character {position} it has {wanted[around]!r}, not {found[around]!r}"
