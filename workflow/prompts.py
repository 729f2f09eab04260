"""The prompt template: a recipe's Jinja file that turns a row into chat messages, in a sandbox.

The blocks `system` (may be absent) and `user` see the row's prompt fields only, the block `assistant`
also its target fields: a prompt cannot leak the answer. Templates are data from a stranger: no attribute
of Python is reachable, nothing is loaded, and time, memory and output are bounded.
"""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from workflow.errors import BuildError

Message = dict[str, str]

SECONDS = 2.0
"""Longest time one row may take to render."""
CHARACTERS = 8_000_000
"""Longest text that a template may make."""
MEMORY = 1 << 30
"""Bytes of address space that rendering may add."""

_BLOCKS = ("system", "user", "assistant")
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


class PromptTemplate:
    """A parsed prompt template."""

    def __init__(self, path: Path):
        """Read and compile the template.

        Raises:
            BuildError: A syntax error (with its line), a tag that loads files, or no user block.
        """
        self.path = path
        text = path.read_text(encoding="utf-8")
        environment = _Sandbox()
        try:
            tree = environment.parse(text)
            self._refuse_loading(tree)
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise BuildError(f"{path}:{error.lineno}: {error.message}") from None
        unknown = set(self._template.blocks) - set(_BLOCKS)
        if unknown or "user" not in self._template.blocks:
            raise BuildError(
                f"{path}: a template has the blocks {', '.join(_BLOCKS)} "
                f"({'unknown: ' + ', '.join(sorted(unknown)) if unknown else 'user is missing'})"
            )

    def _refuse_loading(self, tree: nodes.Template) -> None:
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            kind = type(node).__name__.lower()
            raise BuildError(f"{self.path}:{node.lineno}: {kind} is not allowed: a template is one file")

    def messages(self, row: Mapping[str, Any], answer: bool) -> list[Message]:
        """The chat messages of a row, with the assistant's last if `answer`.

        Raises:
            BuildError: The template uses a variable that the row does not have, or misbehaves.
        """
        prompt = dict(row["prompt"])
        blocks = self._template.blocks
        messages = [
            {"role": role, "content": self._render(role, prompt, row["id"])}
            for role in ("system", "user")
            if role in blocks
        ]
        if answer:
            if "assistant" not in blocks:
                raise BuildError(f"{self.path}: training needs the block assistant")
            content = self._render("assistant", prompt | dict(row["target"]), row["id"])
            messages.append({"role": "assistant", "content": content})
        return messages

    def _render(self, block: str, fields: dict[str, Any], row: str) -> str:
        place = f"{self.path}: block {block}, row {row}"
        try:
            with time_limit(SECONDS):
                context = self._template.new_context(fields)
                text = "".join(_bounded(self._template.blocks[block](context)))
        except UndefinedError as error:
            raise BuildError(f"{place}: {error.message}; it may use {', '.join(sorted(fields))}") from None
        except TimeoutError:
            raise BuildError(f"{place}: not finished after {SECONDS:g} s; simplify the template") from None
        except (MemoryError, OverflowError):
            raise BuildError(f"{place}: makes too much text; simplify the template") from None
        except (SecurityError, TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise BuildError(f"{place}: {error}") from None
        return text


def _bounded(pieces: Iterator[str]) -> Iterator[str]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > CHARACTERS:
            raise OverflowError
        yield piece


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds` (main thread only: it uses SIGALRM)."""

    def expired(signum: int, frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def memory_limit(extra: int = MEMORY) -> Iterator[None]:
    """Let the address space grow by `extra` bytes at most in the block: more is a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
