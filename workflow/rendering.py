"""The one renderer: messages -> token ids and label mask, for training, prediction and serving alike.

The prompt is tokenized by itself and the answer by itself, so the prompt's ids are a strict prefix of
the training ids whatever merges the tokenizer knows, and prediction starts from exactly those ids.
Trained are the answer and the stop token after it, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow import bounds
from workflow.bounds import TIME_IS_UP, bounded
from workflow.chat import Chat
from workflow.encoding import Encoded, Encoder
from workflow.errors import BuildError
from workflow.prompts import Message


@dataclass(frozen=True)
class Text:
    """A row as text, cut where the model begins and ends to speak.

    `parts` are prompt and answer in turn; a row without an answer has a prompt alone. `stops` has the
    stop token behind each answer.
    """

    parts: list[str]
    stops: list[int]

    @property
    def prompt(self) -> str:
        """The text up to where the model first speaks."""
        return self.parts[0]


class Renderer:
    """A model's tokenizer with its chat template."""

    def __init__(self, folder: Path, fast: bool = False):
        """Load the product `tokenizer` in `folder`; `fast`: try gigatoken (see `workflow.encoding`).

        Raises:
            BuildError: There is no chat template, or the files are damaged.
        """
        from tokenizers import Tokenizer

        self.chat, path = Chat.read(folder), folder / "tokenizer.json"
        try:
            self.backend: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise BuildError(f"{path}: damaged ({error}); build again") from None
        if not self.chat.template:
            raise BuildError(f"{folder}: the tokenizer has no chat template")
        self.encoder = Encoder(self.backend, fast)
        self._stops: dict[str, int | None] = {}
        self._special = re.compile("|".join(map(re.escape, self.chat.special)) or r"(?!)")

    def text(self, messages: list[Message], row: str) -> Text:
        """Apply the chat template; the last message, if the assistant's, is the answer.

        Raises:
            BuildError: A message holds a special token, or the chat template changes the answer, is not
                prefix-preserving, or does not put a stop token behind the answer.
        """
        for message in messages:
            if found := self._special.search(message["content"]):
                raise BuildError(
                    f"row {row}: the {message['role']} turn holds the special token {found[0]!r}, "
                    "which would end or forge a turn; remove it from the data or the template"
                )
        if messages[-1]["role"] != "assistant":
            return Text([self._chat(messages, True)], [])
        prompt, whole = self._chat(messages[:-1], True), self._chat(messages, False)
        answer = messages[-1]["content"]
        if not answer:
            raise BuildError(f"row {row}: the answer is empty; correct the row or the template")
        if not whole.startswith(prompt + answer):
            raise BuildError(
                f"row {row}: the chat template changes the prompt or the answer when it is complete; "
                "training and prediction would differ"
            )
        return Text([prompt, answer], [self._stop(whole[len(prompt) + len(answer) :], row)])

    def _chat(self, messages: list[Message], open_turn: bool) -> str:
        try:
            text = bounded(self.chat.text, messages, open_turn)
        except TIME_IS_UP:
            raise BuildError(f"the model's chat template: not finished after {bounds.SECONDS:g} s") from None
        except Exception as error:  # the template is a stranger's: whatever it raises is its own fault
            raise BuildError(f"the model's chat template: {str(error) or type(error).__name__}") from None
        bos = self.chat.names.get("bos_token")
        if bos and text.startswith(bos + bos):
            raise BuildError(f"the model's chat template: it begins with {bos!r} twice")
        return text

    def _stop(self, behind: str, row: str) -> int:
        if behind not in self._stops:
            ids = self.backend.encode(behind, add_special_tokens=False).ids
            self._stops[behind] = int(ids[0]) if ids and ids[0] in self.chat.stop_ids else None
        stop = self._stops[behind]
        if stop is None:
            names = [str(self.backend.id_to_token(i)) for i in self.chat.stop_ids]
            raise BuildError(
                f"row {row}: the chat template puts {behind[:20]!r} behind the answer, not a stop token "
                f"({', '.join(names)}); the model would never learn to stop"
            )
        return stop

    def encode(self, texts: Sequence[str], rows: Sequence[str]) -> Encoded:
        """Token ids of each text, special tokens in it recognised, none added.

        Raises:
            BuildError: The tokenizer loses something of a text.
        """
        return self.encoder.encode(texts, rows)
