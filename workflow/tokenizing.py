"""Rows -> token rows within the recipe's limits: what one shard needs, and nothing about shards."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from workflow.bounds import shared_bounds
from workflow.errors import BuildError
from workflow.prompts import Message, PromptTemplate
from workflow.rendering import Renderer, Text
from workflow.tokens import TokenRow, digest_of_row

Tokens = NDArray[np.int32]


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
    """A row's messages; the digest stands for them and the id, and so for all that its tokens tell."""

    id: str
    messages: list[Message]
    digest: bytes


class Tokenizing:
    """Renders and tokenizes rows as one plan of `shards` asks."""

    def __init__(self, chosen: dict[str, Any], template: PromptTemplate, tokenizer: Path, fast: bool):
        """Work by the slice `chosen` with the tokenizer in a folder, loaded when the first row needs it."""
        self.train = chosen["split"] == "train"
        self.overflow = chosen["overflow"]
        self.limits = Limits(chosen["max_length"], chosen["max_source_length"], chosen["max_target_length"])
        self.template, self._tokenizer, self._fast = template, tokenizer, fast

    @cached_property
    def renderer(self) -> Renderer:
        """The tokenizer with its chat template."""
        renderer = Renderer(self._tokenizer, self._fast)
        gc.freeze()  # the libraries are here to stay: no collection need walk through them (a tenth faster)
        return renderer

    def asked(self, lines: Sequence[bytes]) -> list[Asked]:
        """What some lines of `rows.jsonl` ask, by the prompt template.

        Raises:
            BuildError: A row cannot be rendered.
        """
        with shared_bounds():
            return [self._asked(orjson.loads(line)) for line in lines]

    def _asked(self, row: dict[str, Any]) -> Asked:
        messages = self._messages(row)
        body = orjson.dumps([row["id"], messages], option=orjson.OPT_SORT_KEYS)
        return Asked(row["id"], messages, digest_of_row(body))

    def rows(self, asked: Sequence[Asked]) -> list[TokenRow]:
        """The token rows, those that are left out too.

        Raises:
            BuildError: A row cannot be rendered, or is over the limits and may not be changed.
        """
        if not asked:
            return []
        renderer = self.renderer
        with shared_bounds():
            texts = [renderer.text(one.messages, one.id) for one in asked]
        ids = [one.id for one in asked]
        messages = [one.messages for one in asked]
        prompts, answers = self._encode(texts, ids)
        return [self._fit(*parts) for parts in zip(ids, messages, prompts, answers, strict=True)]

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

    def _encode(self, texts: list[Text], ids: list[str]) -> tuple[Sequence[Tokens], Iterator[Tokens]]:
        """Prompts, and answers with their stop tokens."""
        if not self.train:
            none = np.zeros(0, np.int32)
            return self.renderer.encode([text.prompt for text in texts], ids).rows(), iter([none] * len(ids))
        both = list(chain.from_iterable((text.prompt, text.answer) for text in texts))
        rows = self.renderer.encode(both, [row for row in ids for _ in range(2)]).rows()
        stops = (np.array([] if text.stop is None else [text.stop], np.int32) for text in texts)
        return rows[::2], (np.concatenate(parts) for parts in zip(rows[1::2], stops, strict=True))

    def _fit(self, row: str, messages: list[Message], prompt: Tokens, answer: Tokens) -> TokenRow:
        """Apply the overflow policy."""
        excess = self.limits.excess(len(prompt), len(answer))
        if not excess:
            return _token_row(row, prompt, answer)
        if self.overflow == "drop":
            if self.train:
                return _token_row(row, prompt[:0], answer[:0], "dropped")
            return _token_row(row, prompt, answer, "over_limit")
        if self.overflow == "error" or excess >= len(prompt):
            raise BuildError(
                f"row {row}: {len(prompt)} prompt and {len(answer)} answer tokens are over the limits of "
                "section prompt; raise them, or choose another `overflow`"
            )
        return self._truncated(row, messages, prompt, answer)

    def _truncated(self, row: str, messages: list[Message], prompt: Tokens, answer: Tokens) -> TokenRow:
        """Cut the last user message until the row fits; tokens at the cut may merge anew, so try again."""
        before = len(prompt)
        while excess := self.limits.excess(len(prompt), len(answer)):
            user = max(i for i, m in enumerate(messages) if m["role"] == "user")
            content = self._cut(messages[user]["content"], excess, row)
            messages = [{**m, "content": content} if i == user else m for i, m in enumerate(messages)]
            prompt = self.renderer.encode([self.renderer.text(messages, row).prompt], [row]).ids
        return _token_row(row, prompt, answer, "truncated", before - len(prompt))

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


def _token_row(row: str, prompt: Tokens, answer: Tokens, outcome: str = "kept", cut: int = 0) -> TokenRow:
    trained = np.zeros(len(prompt) + len(answer), np.uint8)
    trained[len(prompt) :] = 1
    return TokenRow(row, np.concatenate((prompt, answer)), trained, len(prompt), outcome, cut)


def _difference(wanted: str, found: str) -> str:
    position = len(commonprefix([wanted, found]))
    around = slice(max(0, position - 10), position + 20)
    return f"at character {position} it has {wanted[around]!r}, not {found[around]!r}"
