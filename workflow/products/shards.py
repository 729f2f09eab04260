"""shards: the rows of one split as token ids and label mask, within the recipe's limits.

A training row is prompt and answer; a test row is the prompt alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from os.path import commonprefix
from typing import Any

import numpy as np
import orjson

from workflow.errors import BuildError
from workflow.products.rows import ROWS
from workflow.progress import Progress
from workflow.prompts import Message, PromptTemplate
from workflow.rendering import Renderer, Text
from workflow.store.build import Job
from workflow.tokens import TokenRow, write_rendering, write_shard

VERSION = 1
ROWS_PER_SHARD = 10_000


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens; None is no limit."""

    total: int | None
    source: int | None
    target: int | None

    def excess(self, prompt: int, answer: int) -> int:
        """Tokens of the prompt that are too many; more than the prompt has when the answer is too long."""
        over = [0]
        if self.total is not None:
            over.append(prompt + answer - self.total)
        if self.source is not None:
            over.append(prompt - self.source)
        if self.target is not None and answer > self.target:
            over.append(prompt + answer)
        return max(over)


def make(job: Job) -> dict[str, Any]:
    """Write the shards.

    Returns:
        Counts: rows, tokens, trained tokens, the longest row, and what the limits did.

    Raises:
        BuildError: A row cannot be rendered, a row is over the limits and the recipe says `error`, the
            tokenizer loses text, or no row is left.
    """
    shards = _Shards(job)
    with (job.inputs["rows"] / ROWS).open("rb") as file:
        total = sum(1 for _ in file)
        file.seek(0)
        rows = map(orjson.loads, file)
        progress, number, done = Progress("shards", total, "rows"), 0, 0
        while batch := list(islice(rows, ROWS_PER_SHARD)):
            kept = list(shards.tokens(batch))
            if kept:
                write_shard(job.out, number, kept)
                number += 1
            done += len(batch)
            progress.reached(done)
    if not number:
        raise BuildError(f"every one of {total} rows is over the limits of section prompt; raise them")
    write_rendering(job.out, shards.renderer.rendering)
    return dict(sorted(shards.counts.items()))


class _Shards:
    def __init__(self, job: Job):
        chosen = job.slice
        self.train = chosen["split"] == "train"
        self.overflow = chosen["overflow"]
        self.limits = Limits(chosen["max_length"], chosen["max_source_length"], chosen["max_target_length"])
        self.template = PromptTemplate(job.sources["template"])
        self.renderer = Renderer(job.inputs["tokenizer"])
        names = "rows tokens trained_tokens dropped truncated cut_tokens over_limit longest"
        self.counts: Counter[str] = Counter(dict.fromkeys(names.split(), 0))

    def tokens(self, batch: list[dict[str, Any]]) -> Iterator[TokenRow]:
        """The token rows of a batch, within the limits."""
        messages = [self._messages(row) for row in batch]
        texts = [self.renderer.text(m, row["id"]) for m, row in zip(messages, batch, strict=True)]
        for row, turn, encoded in zip(batch, messages, self._encode(texts, batch), strict=True):
            fitted = self._fit(row["id"], turn, encoded)
            if fitted is not None:
                yield self._counted(row["id"], *fitted)

    def _messages(self, row: dict[str, Any]) -> list[Message]:
        messages = self.template.messages(row, answer=self.train)
        user = next(m["content"] for m in messages if m["role"] == "user")
        if row["rendered"] is not None and user != row["rendered"]:
            raise BuildError(
                f"row {row['id']}: the source's own prompt is not what {self.template.path.name} makes: "
                f"{_difference(row['rendered'], user)}"
            )
        return messages

    def _encode(self, texts: list[Text], batch: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
        ids = [row["id"] for row in batch]
        prompts = self.renderer.encode([text.prompt for text in texts], ids)
        answers = self.renderer.encode([text.answer for text in texts], ids)
        stops = [[] if text.stop is None else [text.stop] for text in texts]
        return [(p, a + s) for p, a, s in zip(prompts, answers, stops, strict=True)]

    def _fit(
        self, row: str, messages: list[Message], encoded: tuple[list[int], list[int]]
    ) -> tuple[list[int], list[int]] | None:
        """Apply the overflow policy; None leaves the row out."""
        prompt, answer = encoded
        excess = self.limits.excess(len(prompt), len(answer))
        if not excess:
            return encoded
        if self.overflow == "drop":
            self.counts["dropped" if self.train else "over_limit"] += 1
            return None if self.train else encoded
        if self.overflow == "error" or excess >= len(prompt):
            raise BuildError(
                f"row {row}: {len(prompt)} prompt and {len(answer)} answer tokens are over the limits of "
                "section prompt; raise them, or choose another `overflow`"
            )
        return self._truncated(row, messages, prompt, answer)

    def _truncated(
        self, row: str, messages: list[Message], prompt: list[int], answer: list[int]
    ) -> tuple[list[int], list[int]]:
        """Cut the last user message until the row fits; tokens at the cut may merge anew, so try again."""
        before = len(prompt)
        while excess := self.limits.excess(len(prompt), len(answer)):
            user = max(i for i, m in enumerate(messages) if m["role"] == "user")
            content = self._cut(messages[user]["content"], excess, row)
            messages = [{**m, "content": content} if i == user else m for i, m in enumerate(messages)]
            text = self.renderer.text(messages, row)
            prompt = self.renderer.encode([text.prompt], [row])[0]
        self.counts["truncated"] += 1
        self.counts["cut_tokens"] += before - len(prompt)
        return prompt, answer

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

    def _counted(self, row: str, prompt: list[int], answer: list[int]) -> TokenRow:
        self.counts["rows"] += 1
        self.counts["tokens"] += len(prompt) + len(answer)
        self.counts["trained_tokens"] += len(answer)
        self.counts["longest"] = max(self.counts["longest"], len(prompt) + len(answer))
        trained = np.zeros(len(prompt) + len(answer), dtype=np.uint8)
        trained[len(prompt) :] = 1
        return TokenRow(row, np.array(prompt + answer, dtype=np.int32), trained, len(prompt))


def _difference(wanted: str, found: str) -> str:
    position = len(commonprefix([wanted, found]))
    around = slice(max(0, position - 10), position + 20)
    return f"at character {position} it has {wanted[around]!r}, not {found[around]!r}"
