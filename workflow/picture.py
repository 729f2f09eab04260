"""The graph of a recipe as a picture, in a terminal or as a Mermaid flowchart: `tunemake show`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow.costs import Cost, cost_in
from workflow.graph import Draw
from workflow.node import Node
from workflow.progress import duration, size
from workflow.state import Look, in_flow, names
from workflow.store.store import Store

LOGS = Path("logs")
HEADER = ("product", "address", "state", "size", "age", "took", "also from")


@dataclass(frozen=True)
class Fact:
    """One product as it is now; `bytes`, `age` (seconds) and `cost` are None where it is not built.

    `inputs` leaves out what another input is made from.
    """

    name: str
    node: Node
    inputs: tuple[str, ...]
    bytes: int | None
    age: float | None
    cost: Cost | None

    @property
    def short(self) -> str:
        """The beginning of the address, as logs and messages have it."""
        return self.node.address[:8]

    @property
    def log(self) -> Path | None:
        """What the job wrote when it ran in this folder; None if it did not."""
        path = LOGS / self.node.product / f"{self.node.address}.log"
        return path if path.is_file() else None

    @property
    def state(self) -> tuple[str, ...]:
        """Built or not, size, age, what making it took; empty where it is not built."""
        if self.age is None:
            return "not built", "", "", ""
        took = duration(self.cost.seconds) if self.cost else ""
        return "built", size(self.bytes), ago(self.age), took


def facts(draw: Draw, recipe: str) -> list[Fact]:
    """The products of a recipe, and of those it builds on, in the order of the flow.

    Raises:
        BuildError: The recipe is wrong.
    """
    known, look = names(draw, recipe), Look(draw.store)
    return [_fact(look, node, known) for node in in_flow(draw.recipe(recipe).products.values(), known)]


def _fact(look: Look, node: Node, known: Mapping[str, str]) -> Fact:
    name = known[node.address]
    inputs = tuple(dict.fromkeys(known[inner.address] for inner in _last_inputs(node)))
    key = look.key(node.product, node.address)
    if key is None:
        return Fact(name, node, inputs, None, None, None)
    folder = look.store.folder(node.product, key)
    age = max(0.0, time.time() - folder.stat().st_mtime)
    return Fact(name, node, inputs, look.size(node), age, cost_in(look.store.run_record(node.product, key)))


def _last_inputs(node: Node) -> list[Node]:
    """The inputs that no other input is made from: the others would only clutter the picture."""
    inner = {behind.address for n in node.inputs.values() for behind in n.closure()[:-1]}
    return [n for n in node.inputs.values() if n.address not in inner]


def ago(seconds: float) -> str:
    """An age in its largest unit: `5 min`, `3 h`, `12 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def terminal(draw: Draw, recipe: str, width: int | None = None) -> str:
    """The flow as a tree: each product below the last of its inputs, its other inputs in the last column.

    Args:
        draw: What draws the recipe.
        recipe: Its name.
        width: Columns; longer lines are cut. None: nothing is cut.
    """
    return _drawn(facts(draw, recipe), width)


def _drawn(found: Sequence[Fact], width: int | None) -> str:
    tree = list(_tree(found))
    rows = [HEADER, *((label, fact.short, *fact.state, _others(fact, found)) for label, fact in tree)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines
    )


def _tree(found: Sequence[Fact]) -> Iterator[tuple[str, Fact]]:
    """Each product with the branches in front of it."""
    below: dict[str | None, list[Fact]] = {}
    for fact in found:
        below.setdefault(_parent(fact, found), []).append(fact)

    def walk(parent: str | None, front: str) -> Iterator[tuple[str, Fact]]:
        children = below.get(parent, [])
        for i, fact in enumerate(children):
            last = i == len(children) - 1
            edge, inner = ("", "") if parent is None else ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield f"{front}{edge}{fact.name}", fact
            yield from walk(fact.name, front + inner)

    return walk(None, "")


def _parent(fact: Fact, found: Sequence[Fact]) -> str | None:
    """The input that comes last in the flow: all others are ready when it is."""
    order = {other.name: i for i, other in enumerate(found)}
    return max(fact.inputs, key=lambda name: order[name], default=None)


def _others(fact: Fact, found: Sequence[Fact]) -> str:
    parent = _parent(fact, found)
    others = [name for name in fact.inputs if name != parent]
    return ", ".join(others)


def _logs(found: Sequence[Fact]) -> str:
    """Where the job of each product wrote its log, for those that ran in this folder."""
    written = [(fact.name, fact.log) for fact in found if fact.log]
    column = max((len(name) for name, _ in written), default=0) + 2
    return "\n".join(f"{name:<{column}}{log}" for name, log in written)


def mermaid(draw: Draw, recipe: str) -> str:
    """A Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html) with a link to each log."""
    found = facts(draw, recipe)
    ids = {fact.name: f"n{i}" for i, fact in enumerate(found)}
    lines = ["flowchart TD"]
    for fact in found:
        state = ", ".join(part for part in fact.state if part and part != "built")
        kind = "built" if fact.age is not None else "open"
        lines.append(f'    {ids[fact.name]}["{fact.name}<br/>{fact.short}<br/>{state}"]:::{kind}')
    lines += [f"    {ids[name]} --> {ids[fact.name]}" for fact in found for name in fact.inputs]
    lines += [f'    click {ids[fact.name]} href "{fact.log.as_posix()}"' for fact in found if fact.log]
    lines += [
        "    classDef built fill:#e3f1e3,stroke:#3b7a3b,color:#111",
        "    classDef open fill:#fff,stroke:#999,color:#111,stroke-dasharray:4",
    ]
    return "\n".join(lines)


def show(recipe: str, folder: Path, store: Store, width: int | None = None) -> str:
    """The tree, and below it the logs."""
    found = facts(Draw(store, folder), recipe)
    written = _logs(found)
    return _drawn(found, width) + (f"\n\n{written}" if written else "")
