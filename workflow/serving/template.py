"""The chat template that a server needs to ask as training did: the recipe's blocks, then the model's own.

What a client says becomes what the prompt template would make of it, where that is defined: each turn is
shown by the block of its role if the blocks show nothing of a row but `content` and `number`; a user's text
takes the place of the row's one field if the block `user` shows just one. Any other template is about rows
of several fields: then messages stand as the client sends them (`verbatim`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from workflow.chat import Chat
from workflow.errors import BuildError
from workflow.prompts import Message, PromptTemplate
from workflow.serving.blocks import Block, blocks_of
from workflow.serving.jinja import derived
from workflow.tokenizing import Asked, Tokenizing, last_rounds

TEMPLATE = "chat_template.jinja"
TURN = frozenset({"content", "number"})
SYSTEM = frozenset({"system"})
ANSWER = {"role": "assistant", "content": ""}
PROBES = ("user", "system user", "user assistant user", "system user assistant user assistant user")
"""Roles of the conversations that a derived template is tried with."""
NO_LIMITS = dict.fromkeys(("max_length", "max_source_length", "max_target_length"))


@dataclass(frozen=True)
class Dialogue:
    """How conversations with one trained model are rendered: in training, and in a server.

    `chosen` is the recipe's section `prompt` as the product `shards` has it, `system` the section
    `serving`'s own text.
    """

    path: Path
    tokenizer: Path
    chosen: Mapping[str, Any]
    system: str | None = None

    @cached_property
    def chat(self) -> Chat:
        """The tokenizer's own chat template and tokens."""
        return Chat.read(self.tokenizer)

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """The prompt template's blocks."""
        return blocks_of(self.path)

    @cached_property
    def mode(self) -> Literal["turns", "field", "verbatim"]:
        """What becomes of a client's messages; see the module."""
        blocks = {role: block.fields for role, block in self.blocks.items()}
        user = blocks.get("user", frozenset())
        if not blocks.pop("system", SYSTEM) <= SYSTEM or not user:
            return "verbatim"
        if "assistant" in blocks and all(fields <= TURN for fields in blocks.values()):
            return "turns"
        return "field" if len(user) == 1 else "verbatim"

    @property
    def field(self) -> str:
        """The one field of a row that a user's text takes the place of."""
        (name,) = self.blocks["user"].fields
        return name

    @property
    def stop(self) -> list[str]:
        """Texts that end an answer, besides the stop tokens."""
        return self.chat.rendering(self.chosen["stop"]).stop

    @property
    def behind_answer(self) -> str:
        """What plain text has behind each earlier answer."""
        if self.chosen["stop"]:
            return str(self.chosen["stop"])
        if self.chosen["train_on"] != "all_assistant":
            return ""
        end = self.chat.names.get("eos_token")
        found = self._tokenizing.renderer.backend.token_to_id(str(end))
        return str(
            self._tokenizing.renderer.backend.id_to_token(self.chat.stop_ids[0]) if found is None else end
        )

    @cached_property
    def default_system(self) -> str:
        """The system text of a conversation that brings none, "" for none.

        Raises:
            BuildError: It depends on the row, or contradicts the recipe's own.
        """
        block = self.blocks.get("system")
        if self.system is not None:
            if block is not None and not block.fields:
                raise BuildError(
                    f"{self.path}: its system text is the same for every row; drop serving.system"
                )
            return self._opening(self.system)
        if block is None:
            return ""
        if not block.fields <= SYSTEM:
            shown = ", ".join(sorted(block.fields))
            raise BuildError(
                f"{self.path}: the block system shows {shown} of a row, not known here; say serving.system"
            )
        return self._made({"system": ""}, [ANSWER])[0]["content"]

    def template(self) -> str:
        """The chat template, proven on a few conversations to give the very ids that training has.

        Raises:
            BuildError: It cannot be derived, or would give others.
        """
        text = derived(self)
        for roles in map(str.split, PROBES):
            messages = [{"role": role, "content": f"{role} {i}?"} for i, role in enumerate(roles)]
            found, wanted = self.served_ids(text, messages), self.ids(messages)
            if found != wanted:
                decode = self._tokenizing.renderer.backend.decode
                texts = [decode(ids, skip_special_tokens=False) for ids in (found, wanted)]
                raise BuildError(
                    f"{self.path}: a conversation of {', '.join(roles)} would be {texts[0]!r} in a server, "
                    f"in training it is {texts[1]!r}; simplify the template to serve it"
                )
        return text

    def ids(self, messages: list[Message]) -> list[int]:
        """Token ids of what a client says, made by the code that makes those of training and prediction."""
        rendered = self.rendered(messages)
        places = [i for i, message in enumerate(rendered) if message["role"] == "assistant"]
        ended = places if self.chosen["train_on"] == "all_assistant" else []
        (row,) = self._tokenizing.rows([Asked({"id": "served", "turns": []}, rendered, ended, b"")])
        found: list[int] = row.input_ids.tolist()
        return found

    def served_ids(self, template: str, messages: list[Message]) -> list[int]:
        """Token ids that a server with this chat template has for what a client says."""
        text = replace(self.chat, template=template).text(messages, open_turn=True)
        found: list[int] = self._tokenizing.renderer.backend.encode(text, add_special_tokens=False).ids
        return found

    def rendered(self, messages: list[Message]) -> list[Message]:
        """The messages that the prompt template makes of what a client says."""
        own = messages[0]["role"] == "system"
        system = self._opening(messages[0]["content"]) if own else self.default_system
        before = [{"role": "system", "content": system}] if system else []
        rest: list[Message] = last_rounds({"turns": messages[own:]}, self.chosen["history"])["turns"]
        if self.mode == "turns":
            rest = self._made({"system": ""}, [*rest, ANSWER])
        elif self.mode == "field":
            rest = [self._filled(message) if message["role"] == "user" else message for message in rest]
        return before + [message for message in rest if message["role"] != "system"]

    def _opening(self, system: str) -> str:
        """The system text that is made of a client's own; a template that knows only its own leaves it."""
        block = self.blocks.get("system")
        if block is None or block.fields != SYSTEM:
            return system
        return self._made({"system": system}, [ANSWER])[0]["content"]

    def _filled(self, message: Message) -> Message:
        return self._made({"system": "", self.field: message["content"]}, [])[-1]

    def _made(self, prompt: dict[str, str], turns: list[Message]) -> list[Message]:
        row = {"id": "served", "prompt": prompt, "turns": turns}
        found = PromptTemplate(self.path).messages(row, answer=False)
        return found or [{"role": "system", "content": ""}]

    @cached_property
    def _tokenizing(self) -> Tokenizing:
        chosen = dict(self.chosen) | NO_LIMITS | {"split": "test", "overflow": "error"}
        return Tokenizing(chosen, PromptTemplate(self.path), self.tokenizer, fast=False)
