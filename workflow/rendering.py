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
from workflow.encoding import Encoded, Encoder
from workflow.errors import BuildError
from workflow.prompts import Message
from workflow.store.files import read_json
from workflow.tokens import Rendering


@dataclass(frozen=True)
class Text:
    """A row as text: the prompt up to where the model goes on, and the answer with its stop token."""

    prompt: str
    answer: str
    stop: int | None


class Renderer:
    """A model's tokenizer with its chat template."""

    def __init__(self, folder: Path, fast: bool = False):
        """Load the tokenizer files in `folder`; `fast`: try gigatoken (see `workflow.encoding`).

        Raises:
            BuildError: No tokenizer that loads, no fast one, no chat template, or no stop token.
        """
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # tokenizers raises nothing narrower for a damaged file
            raise BuildError(f"{folder}: the tokenizer cannot be loaded ({error})") from None
        if not self.tokenizer.is_fast:
            raise BuildError(f"{folder}: no tokenizer.json; only fast tokenizers are supported")
        if not self.tokenizer.chat_template:
            raise BuildError(f"{folder}: the tokenizer has no chat template")
        self.backend: Any = self.tokenizer.backend_tokenizer
        self.stop_ids = _stop_ids(folder, self.tokenizer)
        special = sorted({t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special})
        self.encoder = Encoder(self.backend, fast)
        self._compiled: tuple[str, Any, dict[str, Any]] = ("", None, {})
        self._stops: dict[str, int | None] = {}
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    @property
    def rendering(self) -> Rendering:
        """What prediction must know: the ids that end an answer, and the padding id."""
        pad = self.tokenizer.pad_token_id
        return Rendering(self.stop_ids, self.stop_ids[0] if pad is None else int(pad))

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
            return Text(self._chat(messages, True), "", None)
        prompt, whole = self._chat(messages[:-1], True), self._chat(messages, False)
        answer = messages[-1]["content"]
        if not answer:
            raise BuildError(f"row {row}: the answer is empty; correct the row or the template")
        if not whole.startswith(prompt + answer):
            raise BuildError(
                f"row {row}: the chat template changes the prompt or the answer when it is complete; "
                "training and prediction would differ"
            )
        return Text(prompt, answer, self._stop(whole[len(prompt) + len(answer) :], row))

    def _chat(self, messages: list[Message], open_turn: bool) -> str:
        try:
            text = bounded(self._chat_text, messages, open_turn)
        except TIME_IS_UP:
            raise BuildError(f"the model's chat template: not finished after {bounds.SECONDS:g} s") from None
        except Exception as error:  # the template is a stranger's: whatever it raises is its own fault
            raise BuildError(f"the model's chat template: {str(error) or type(error).__name__}") from None
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos + bos):
            raise BuildError(f"the model's chat template: it begins with {bos!r} twice")
        return text

    def _chat_text(self, messages: list[Message], open_turn: bool) -> str:
        """What `apply_chat_template(tokenize=False)` returns, by its own compiled template.

        Twice as fast without its general preparations: messages here are a role and a text, no more.
        """
        from transformers.utils.chat_template_utils import _compile_jinja_template

        template = self.tokenizer.get_chat_template()
        if template != self._compiled[0]:
            compiled = _compile_jinja_template(template)
            compiled.globals = dict(compiled.globals)  # a ChainMap: every context would walk through it
            self._compiled = template, compiled, self.tokenizer.special_tokens_map
        _, compiled, special = self._compiled
        return str(
            compiled.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=open_turn, **special
            )
        )

    def _stop(self, behind: str, row: str) -> int:
        if behind not in self._stops:
            ids = self.backend.encode(behind, add_special_tokens=False).ids
            self._stops[behind] = int(ids[0]) if ids and ids[0] in self.stop_ids else None
        stop = self._stops[behind]
        if stop is None:
            names = self.tokenizer.convert_ids_to_tokens(self.stop_ids)
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


def _stop_ids(folder: Path, tokenizer: Any) -> list[int]:
    """End-of-turn ids: of the generation config (what serving stops at), and the tokenizer's eos."""
    path = folder / "generation_config.json"
    settings = read_json(path) if path.exists() else {}
    found = settings.get("eos_token_id") if isinstance(settings, dict) else None
    ids = found if isinstance(found, list) else [found]
    stop = sorted({i for i in [*ids, tokenizer.eos_token_id] if isinstance(i, int)})
    if not stop:
        raise BuildError(f"{folder}: neither generation config nor tokenizer names a stop token")
    return stop
