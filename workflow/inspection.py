"""Whether a recipe can be built, and what of it is there: `tunemake check`."""

from __future__ import annotations

from pathlib import Path

from workflow.errors import BuildError
from workflow.graph import Draw, Graph
from workflow.picture import terminal
from workflow.problems import problems_of
from workflow.prompts import PromptTemplate
from workflow.recipe.load import named
from workflow.store.store import Store


def describe(path: Path, width: int | None = None) -> tuple[str, list[str]]:
    """Validate a recipe and its prompt template, draw its graph, and show its products.

    Reads no network and writes nothing but the cache of source digests.

    Returns:
        The picture of the graph, and one line per thing that a build would stop at.

    Raises:
        BuildError: The recipe, its template or a source is wrong, or the file is not a recipe's.
    """
    if path.suffix != ".yaml":
        raise BuildError(f"{path}: a recipe's file name ends in .yaml")
    store = Store.here()
    folder, name = named(path)
    draw = Draw(store, folder)
    graph = draw.recipe(name)
    for recipe in graph.arms or (name,):
        PromptTemplate(folder / draw.recipe(recipe).recipe.prompt.template)
    return f"{path}: valid\n\n{terminal(draw, name, width)}", _stops(store, graph)


def _stops(store: Store, graph: Graph) -> list[str]:
    unbuilt = [node for node in graph.nodes.values() if not store.built(node.product, node.address)]
    return list(dict.fromkeys(problem for node in unbuilt for problem in problems_of(node)))
