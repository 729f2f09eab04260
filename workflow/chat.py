"""The model's chat template: messages -> text, as transformers' `apply_chat_template` makes it, only quicker.

Templates come from strangers: they run in Jinja's immutable sandbox, with the names that transformers gives
them and no others. Reading the fields of plain dictionaries, most of what they do, takes a short way.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from workflow.errors import BuildError
from workflow.prompts import Message
from workflow.store.address import canonical
from workflow.store.files import read_json
from workflow.tokens import Rendering

CHAT = "chat.json"
_DICT = frozenset(dir(dict))
_PLAIN = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Add, nodes.Const),
    *(nodes.If, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not),
)


@dataclass(frozen=True)
class Chat:
    """What is to be known of a tokenizer besides its tokens: one file of the product `tokenizer`."""

    template: str | None
    """The chat template, in Jinja."""
    names: dict[str, Any]
    """Role of a special token -> its text, `bos_token` for one; templates see them as variables."""
    special: list[str]
    """Texts of all special tokens."""
    stop_ids: list[int]
    """Tokens that end a turn: what serving stops at."""
    pad_id: int | None
    begin: str
    """What the tokenizer itself puts before a text: the text of its BOS token, or nothing."""
    positions: int | None
    """Longest row that the model was made for, in tokens."""

    @classmethod
    def read(cls, folder: Path) -> Chat:
        """Read the file of a tokenizer's folder.

        Raises:
            BuildError: It is missing or damaged.
        """
        try:
            return cls(**read_json(folder / CHAT))
        except TypeError as error:
            raise BuildError(f"{folder / CHAT}: damaged ({error}); build again") from None

    def write(self, folder: Path) -> None:
        """Write that file."""
        (folder / CHAT).write_bytes(canonical(asdict(self)) + b"\n")

    def rendering(self, stop: str | None) -> Rendering:
        """What prediction must know: the ids and the text that end an answer, and the padding id."""
        pad = self.stop_ids[0] if self.pad_id is None else self.pad_id
        return Rendering(self.stop_ids, [stop] if stop else [], pad)

    def text(self, messages: list[Message], open_turn: bool) -> str:
        """The conversation as text; `open_turn`: up to where the model goes on.

        Whatever a stranger's template raises is raised here.
        """
        if not self._opaque:
            return self._rendered(messages, open_turn)
        asked = (open_turn, *(message["role"] for message in messages))
        if asked not in self._frames:
            marked = [{"role": m["role"], "content": f"\0{i}\0"} for i, m in enumerate(messages)]
            self._frames[asked] = self._rendered(marked, open_turn).split("\0")
        pieces = list(self._frames[asked])
        pieces[1::2] = [messages[int(number)]["content"] for number in pieces[1::2]]
        return "".join(pieces)

    def _rendered(self, messages: list[Message], open_turn: bool) -> str:
        asked = {"messages": messages, "add_generation_prompt": open_turn, **self._always}
        context = self._compiled.new_context(asked)
        return "".join(self._compiled.root_render_func(context))

    @cached_property
    def _always(self) -> dict[str, Any]:
        return {"tools": None, "documents": None, **self.names}

    @cached_property
    def _opaque(self) -> bool:
        return is_opaque(Sandbox().parse(self.template or ""))

    @cached_property
    def _frames(self) -> dict[tuple[Any, ...], list[str]]:
        """Texts around the contents of messages with these roles, and the numbers of these messages."""
        return {}

    @cached_property
    def _compiled(self) -> Any:
        compiled = Sandbox().from_string(self.template or "")
        compiled.globals = dict(compiled.globals)  # a ChainMap: every context would walk through it
        return compiled


def is_opaque(node: nodes.Node, names: frozenset[str] = frozenset(), shown: bool = False) -> bool:
    """Whether a template does nothing with what messages say but put it between texts.

    Then conversations with the same roles have the same texts around it, and one need be rendered. Only
    what a plain ChatML template is made of is known here; of any other template this is not claimed.

    Args:
        node: The template, or a part of it.
        names: Variables of the loops around this part; each is a message.
        shown: Whether this part is put out as it is.
    """
    if isinstance(node, nodes.For):
        plain = _is_name(node.iter, {"messages"}) and not (node.recursive or node.test or node.else_)
        if not plain or not isinstance(node.target, nodes.Name):
            return False
        return all(is_opaque(child, names | {node.target.name}) for child in node.body)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        field = _field(node)
        if _is_message(node.node, names):
            return field == "role" or (field == "content" and shown)
        return _is_name(node.node, {"loop"}) and field in ("first", "last", "index", "index0", "length")
    if isinstance(node, nodes.Name):
        return node.name not in names | {"messages", "loop", "self"}
    shown = isinstance(node, nodes.Output) or (shown and isinstance(node, nodes.Add))
    return isinstance(node, _PLAIN) and all(
        is_opaque(child, names, shown) for child in node.iter_child_nodes()
    )


def _is_name(node: nodes.Node, names: Container[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _is_message(node: nodes.Node, names: Container[str]) -> bool:
    """`message` of a loop over messages, or `messages[0]`."""
    if isinstance(node, nodes.Getitem):
        return _is_name(node.node, {"messages"}) and _field(node) == 0
    return _is_name(node, names)


def _field(node: nodes.Getattr | nodes.Getitem) -> object:
    """The field that is asked for, or None if that is computed."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what a model wrote; here it is only shown."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """What chat templates run in, as transformers compiles them (`utils/chat_template_utils.py`, 5.23)."""

    def __init__(self) -> None:
        """Make the environment."""
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _tojson
        self.globals |= {"raise_exception": _raise, "strftime_now": _now, "namespace": _Namespace}
        self._safe: dict[tuple[type, str], bool] = {}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of a plain dictionary at once, anything else as Jinja does."""
        if type(obj) is dict and attribute in obj and attribute not in _DICT:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """The sandbox's own judgement, which looks at nothing but the type and the name."""
        key = (type(obj), attr)
        if key not in self._safe:
            self._safe[key] = super().is_safe_attribute(obj, attr, value)
        return self._safe[key]


class _Namespace(Namespace):
    """Jinja's, but for names that begin with an underscore: they are Python's own."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template cannot set {name!r}")
        super().__setitem__(name, value)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)
