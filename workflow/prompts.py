"""The prompt template: a recipe's Jinja file that turns a row into chat messages, in a sandbox.

The blocks `system` (may be absent) and `user` see the row's prompt fields only, the block `assistant`
also its target fields: a prompt cannot leak the answer. In a conversation each turn is rendered by the block
of its role (`tool` among them), which sees the prompt fields and what is said in that turn. Templates are
data from a stranger: no attribute of Python is reachable, nothing is loaded, and time, memory and output
are bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workflow import bounds
from workflow.bounds import TIME_IS_UP, Expired, bounded, memory_limit, time_limit
from workflow.errors import BuildError
from workflow.recipe.prompt import VARIANT
from workflow.store.address import address_of

Message = dict[str, str]
Piece = tuple[str, str | None]
"""A text as it stands in a template, or the name of a field."""

CHARACTERS = 8_000_000
"""Longest text that a template may make."""

_BLOCKS = ("system", "user", "assistant", "tool")
_TYPES = (str, bytes, int, float, list, tuple, dict)
_METHODS = frozenset(
    "capitalize copy count endswith find get index isalnum isalpha isascii isdecimal isdigit islower "
    "isnumeric isspace isupper items join keys lower lstrip partition removeprefix removesuffix replace "
    "rfind rpartition rsplit rstrip split splitlines startswith strip swapcase title upper values".split()
)
"""Methods of plain values that a template may call: none that pads, formats or loads a codec."""
_FILTERS = frozenset(
    "abs capitalize count d default dictsort first float groupby int items join last length list lower "
    "map max min reject rejectattr replace reverse round select selectattr slice sort string sum title "
    "tojson trim truncate unique upper wordcount".split()
)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, less what could exhaust the machine or vary between two runs."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        self.filters = {name: f for name, f in self.filters.items() if name in _FILTERS}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator == "**" or not numbers:
            raise SecurityError(f"operator {operator} works on numbers only, and ** not at all")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> None:
        """Never let `str.format` through, not even Jinja's guarded one: a width fills the memory."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, _TYPES) and attr not in _METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)


class PromptTemplate:
    """A parsed prompt template; `meaning` is what comments and their line numbers do not change."""

    def __init__(self, path: Path):
        """Read and compile the template.

        Raises:
            BuildError: No UTF-8 text, a syntax error (with its line), a tag that loads files, no user
                block, or constants that take too long or too much memory to compute.
        """
        self.path = path
        self.meaning = ""
        self._plain: dict[str, list[Piece]] = {}
        self._template = self._compiled()
        unknown = set(self._template.blocks) - set(_BLOCKS)
        if unknown or not {"user", "assistant"} & set(self._template.blocks):
            what = (
                f"unknown: {', '.join(sorted(unknown))}" if unknown else "neither user nor assistant is there"
            )
            raise BuildError(f"{path}: a template has the blocks {', '.join(_BLOCKS)} ({what})")

    def _compiled(self) -> Template:
        """Jinja computes constant expressions when it compiles, so that is bounded like rendering."""
        environment = _Sandbox()
        try:
            text = self.path.read_text(encoding="utf-8")
            with memory_limit(), time_limit(bounds.SECONDS):
                tree = environment.parse(text)
                self._refuse_loading(tree)
                self.meaning = _meaning(tree)
                self._plain = {b.name: p for b in tree.find_all(nodes.Block) if (p := _pieces(b)) is not None}
                template = environment.from_string(text)
                template.globals = dict(template.globals)  # a ChainMap: every context would walk through it
                return template
        except TemplateSyntaxError as error:
            raise BuildError(f"{self.path}:{error.lineno}: {error.message}") from None
        except (OSError, Expired) as error:
            reason = (
                error.strerror if isinstance(error, OSError) and error.strerror else "not compiled in time"
            )
            raise BuildError(f"{self.path}: {reason}; simplify or correct the template") from None
        except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
            raise BuildError(f"{self.path}: not a template ({str(error) or type(error).__name__})") from None

    def _refuse_loading(self, tree: nodes.Template) -> None:
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            kind = type(node).__name__.lower()
            raise BuildError(f"{self.path}:{node.lineno}: {kind} is not allowed: a template is one file")

    def messages(self, row: Mapping[str, Any], answer: bool) -> list[Message]:
        """The chat messages of a row, with the assistant's last if `answer`; an empty system turn is none.

        Raises:
            BuildError: The template uses a variable that the row does not have, or misbehaves.
        """
        prompt, blocks = dict(row["prompt"]), self._template.blocks
        system = self._render("system", prompt, row["id"]) if "system" in blocks else ""
        messages = [{"role": "system", "content": system}] if system else []
        if row["turns"]:
            return messages + self._conversation(row, prompt, answer)
        if "user" in blocks:
            messages.append({"role": "user", "content": self._render("user", prompt, row["id"])})
        if answer:
            content = self._render("assistant", prompt | dict(row["target"]), row["id"])
            messages.append({"role": "assistant", "content": content})
        return messages

    def _conversation(self, row: Mapping[str, Any], prompt: dict[str, Any], answer: bool) -> list[Message]:
        """One message per turn; without the answer it ends before the assistant's last turn."""
        messages, rounds = [], -1
        for turn in row["turns"] if answer else row["turns"][:-1]:
            rounds += turn["role"] == "user"
            fields = prompt | {"content": turn["content"], "number": max(rounds, 0)}
            content = self._render(turn["role"], fields, row["id"])
            messages.append({"role": turn["role"], "content": content})
        return messages

    def _text(self, block: str, fields: dict[str, Any]) -> str:
        context = self._template.new_context(fields)
        return "".join(_counted(self._template.blocks[block](context)))

    def _render(self, block: str, fields: dict[str, Any], row: str) -> str:
        if block not in self._template.blocks:
            raise BuildError(f"{self.path}: row {row} needs the block {block}, which the template has not")
        try:
            plain = _filled(self._plain.get(block), fields)
            text = bounded(self._text, block, fields) if plain is None else plain
            text.encode()  # a lone surrogate is no text
        except Exception as error:  # the template is a stranger's: whatever it raises is its own fault
            raise BuildError(f"{self.path}: block {block}, row {row}: {_fault(error, fields)}") from None
        return text


class Variants:
    """Several templates, each row in one of them by a hash of its id: many prompts are learned at once."""

    def __init__(self, templates: Sequence[PromptTemplate]):
        """Take the templates in this order."""
        self.templates = list(templates)
        self.path = self.templates[0].path
        self.meaning = repr([template.meaning for template in self.templates])

    def messages(self, row: Mapping[str, Any], answer: bool) -> list[Message]:
        """As `PromptTemplate.messages`, by the row's own template."""
        chosen = int(address_of(["variant", row["id"]])[:16], 16) % len(self.templates)
        return self.templates[chosen].messages(row, answer)


def template_of(sources: Mapping[str, Path]) -> PromptTemplate | Variants:
    """The template of a plan of `shards`, or several.

    Args:
        sources: Role -> file: `template`, and those of variants that rows are shown in as well.

    Raises:
        BuildError: As `PromptTemplate`.
    """
    own = PromptTemplate(sources["template"])
    others = [PromptTemplate(path) for role, path in sorted(sources.items()) if role.startswith(VARIANT)]
    return Variants([own, *others]) if others else own


def _fault(error: Exception, fields: dict[str, Any]) -> str:
    if isinstance(error, UndefinedError):
        return f"{error.message}; it may use {', '.join(sorted(fields))}"
    if isinstance(error, TIME_IS_UP):
        return f"not finished after {bounds.SECONDS:g} s; simplify the template"
    if isinstance(error, MemoryError | OverflowError):
        return "makes too much text; simplify the template"
    return f"{str(error) or type(error).__name__}; correct the template"


def _pieces(block: nodes.Block) -> list[Piece] | None:
    """The pieces of a block that only puts fields between texts; None for any other."""
    pieces: list[Piece] = []
    for output in block.body:
        for node in output.nodes if isinstance(output, nodes.Output) else [output]:
            if isinstance(node, nodes.TemplateData):
                pieces.append((node.data, None))
            elif isinstance(node, nodes.Name):
                pieces.append(("", node.name))
            else:
                return None
    return pieces


def _filled(pieces: list[Piece] | None, fields: dict[str, Any]) -> str | None:
    """What Jinja would make of such a block, a few microseconds sooner; None where it is to be asked."""
    if pieces is None:
        return None
    texts: list[str] = []
    for text, name in pieces:
        value = text if name is None else fields.get(name)
        if type(value) is not str:
            return None
        texts.append(value)
    made = "".join(texts)
    return made if len(made) <= CHARACTERS else None


def _meaning(tree: nodes.Template) -> str:
    """The blocks as syntax trees, without line numbers; text is one node however comments cut it."""
    for output in tree.find_all(nodes.Output):
        joined: list[nodes.Expr] = []
        for node in output.nodes:
            if joined and isinstance(node, nodes.TemplateData) and isinstance(joined[-1], nodes.TemplateData):
                joined[-1] = nodes.TemplateData(joined[-1].data + node.data)
            else:
                joined.append(node)
        output.nodes = [node for node in joined if getattr(node, "data", None) != ""]
    return repr(sorted(map(repr, tree.find_all(nodes.Block))))


def _counted(pieces: Iterator[str]) -> Iterator[str]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > CHARACTERS:
            raise OverflowError
        yield piece
