"""What a recipe asks for and what of it is there: `tunemake check`."""

from __future__ import annotations

from pathlib import Path

from workflow.errors import BuildError
from workflow.graph import Draw, Graph
from workflow.prompts import PromptTemplate
from workflow.settle import _problems
from workflow.store.store import Store

HEADER = ("name", "product", "address", "state")


def describe(path: Path) -> str:
    """Validate a recipe and its prompt template, draw its graph, and list its products.

    Reads no network and writes nothing but the cache of source digests.

    Returns:
        A table of products, and one line per thing that a build would stop at.

    Raises:
        BuildError: The recipe, its template or a source is wrong, or the file is not a recipe's.
    """
    if path.suffix != ".yaml":
        raise BuildError(f"{path}: a recipe's file name ends in .yaml")
    store = Store.here()
    graph = Draw(store, path.parent).recipe(path.stem)
    PromptTemplate(path.parent / graph.recipe.prompt.template)
    return "\n".join([f"{path}: valid", "", *_table(store, graph), *_open(store, graph)])


def _table(store: Store, graph: Graph) -> list[str]:
    rows = [HEADER]
    for name, node in graph.products.items():
        state = "built" if store.built(node.product, node.address) else "not built"
        rows.append((name, node.product, node.address[:12], state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _open(store: Store, graph: Graph) -> list[str]:
    """What stands in the way of a build, after an empty line; nothing if nothing does."""
    nodes = {inner.address: inner for node in graph.products.values() for inner in node.closure()}
    unbuilt = [node for node in nodes.values() if not store.built(node.product, node.address)]
    found = dict.fromkeys(problem for node in unbuilt for problem in _problems(node))
    return ["", "before it can be built:", *(f"  {problem}" for problem in found)] if found else []
