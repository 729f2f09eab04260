"""The one renderer: messages -> token ids and label mask, for training, prediction and serving alike.

Each prompt is tokenized by itself and each answer by itself, so a prompt's ids are a strict prefix of the
training ids whatever merges the tokenizer knows, and prediction starts from exactly those ids. Trained are
the answers and the stop after each, nothing else unless the recipe says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow import bounds
from workflow.bounds import TIME_IS_UP, bounded
from workflow.chat import Chat
from workflow.encoding import Encoded, Encoder, backend_of
from workflow.errors import BuildError
from workflow.prompts import Message

NO_STOP = -1


@dataclass(frozen=True)
class Text:
    """A row as text, cut where the model begins and ends to speak.

    `parts` are what is given and what is answered in turn; the last is an answer, or the prompt of one that
    is to be made. `stops` has the stop token behind each answer, NO_STOP where a text of its own ends it.
    """

    parts: list[str]
    stops: list[int]

    @property
    def prompt(self) -> str:
        """The text up to where the model first speaks."""
        return self.parts[0]


class Renderer:
    """A model's tokenizer with its chat template, or without it where the recipe wants plain text."""

    def __init__(self, folder: Path, fast: bool = False, plain: bool = False, stop: str | None = None):
        """Load the product `tokenizer` in `folder`.

        Args:
            folder: The product's folder.
            fast: Try gigatoken (see `workflow.encoding`).
            plain: Join messages as they are, without the chat template.
            stop: Text behind each answer of plain text, in place of the end token.

        Raises:
            BuildError: There is no chat template, or the files are damaged.
        """
        self.chat, self.backend = Chat.read(folder), backend_of(folder)
        if not self.chat.template and not plain:
            raise BuildError(f"{folder}: the tokenizer has no chat template; say prompt.chat_template: plain")
        self.plain, self.stop = plain, stop
        self.encoder = Encoder(self.backend, fast)
        self._stops: dict[str, int | None] = {}
        self._special = re.compile("|".join(map(re.escape, self.chat.special)) or r"(?!)")

    def text(self, messages: list[Message], row: str, answers: Sequence[int] = ()) -> Text:
        """A conversation as text.

        Args:
            messages: The turns; if the last is not among the answers, the model's turn is opened behind it.
            row: The row's id, for messages.
            answers: Places of the messages that the model is to learn, rising.

        Raises:
            BuildError: A message holds a special token, or the chat template changes an answer, is not
                prefix-preserving, or does not put a stop token behind the answer.
        """
        self._refuse_special_tokens(messages, row)
        if any(not messages[place]["content"] for place in answers):
            raise BuildError(f"row {row}: the answer is empty; correct the row or the template")
        if self.plain:
            return self._plain_text(messages, answers)
        parts, stops, done = [], [], ""
        for place in answers:
            prompt, behind = self._prompt_and_stop(messages[: place + 1], row)
            stop = self._stop(behind, row)
            parts += [_behind(done, prompt, row), messages[place]["content"]]
            stops.append(stop)
            done = prompt + parts[-1] + str(self.backend.id_to_token(stop))
        if not answers or answers[-1] < len(messages) - 1:
            parts.append(_behind(done, self._chat(messages, True), row))
        return Text(parts, stops)

    def _prompt_and_stop(self, messages: list[Message], row: str) -> tuple[str, str]:
        """What comes before the answer, the last of the messages, and what behind it."""
        prompt, whole = self._chat(messages[:-1], True), self._chat(messages, False)
        answer = messages[-1]["content"]
        if not whole.startswith(prompt + answer):
            raise BuildError(
                f"row {row}: the chat template changes the prompt or the answer when it is complete; "
                "training and prediction would differ"
            )
        return prompt, whole[len(prompt) + len(answer) :]

    def _plain_text(self, messages: list[Message], answers: Sequence[int]) -> Text:
        parts, stops = [self.chat.begin], []
        for place, message in enumerate(messages):
            text = message["content"]
            if message["role"] == "assistant" and self.stop:
                text += self.stop
            if place in answers:
                parts += [text, ""]
                stops.append(NO_STOP if self.stop else self._end)
            else:
                parts[-1] += text
        return Text(parts[:-1] if answers and answers[-1] == len(messages) - 1 else parts, stops)

    @property
    def _end(self) -> int:
        """The end token, or where there is none the first that serving stops at."""
        found = self.backend.token_to_id(str(self.chat.names.get("eos_token")))
        return self.chat.stop_ids[0] if found is None else int(found)

    def _refuse_special_tokens(self, messages: list[Message], row: str) -> None:
        for message in messages:
            if found := self._special.search(message["content"]):
                raise BuildError(
                    f"row {row}: the {message['role']} turn holds the special token {found[0]!r}, "
                    "which would end or forge a turn; remove it from the data or the template"
                )

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


def _behind(done: str, text: str, row: str) -> str:
    """What a conversation goes on with."""
    if not text.startswith(done):
        raise BuildError(
            f"row {row}: the chat template changes earlier turns of the assistant when others follow; "
            "use prompt.train_on: last"
        )
    return text[len(done) :]
