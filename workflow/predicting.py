"""Answers to new rows: the ordinary graph of a recipe with another file in place of its test rows.

So a row is rendered, drawn and voted as a test row is, by the very same jobs; what was answered before is
not answered again. What is made lies in the store until `tunemake gc`, copies beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from workflow.errors import BuildError
from workflow.node import Node
from workflow.settle import draw, settle
from workflow.store.files import write_atomic
from workflow.store.leases import keep
from workflow.store.store import Store

FILES = {"predictions": "predictions.jsonl", "voted": "voted.jsonl"}


def asked(recipe: str, rows: Path) -> dict[str, Node]:
    """Stamp for Snakemake -> node, of the predictions and, where the recipe votes, the votes.

    Raises:
        BuildError: The recipe asks nothing of its model, or a source is missing.
    """
    if not rows.is_file():
        raise BuildError(f"{rows}: no such file")
    if draw().recipe(recipe).recipe.sampling is None:
        raise BuildError(f"{recipe}: the recipe has no section sampling, which says how the model is asked")
    store, graph = Store.here(), draw().asked(recipe, rows)
    nodes = [graph.products[product] for product in FILES if product in graph.products]
    keep(store, [(node.product, node.address) for node in graph.nodes.values()])
    for node in nodes:
        settle(store, node)
    return {str(store.stamp(node.product, node.address)): node for node in nodes}


def written(nodes: Iterable[Node], rows: Path) -> Iterator[Path]:
    """Copy what was made beside the rows: `new.jsonl` gets `new.predictions.jsonl`; yields each path."""
    store = Store.here()
    for node in nodes:
        receipt = store.built(node.product, node.address)
        if receipt is None:
            raise BuildError(f"{node.product} {node.address}: is not built; ask again")
        name = FILES[node.product]
        path = rows.with_name(f"{rows.name.split('.')[0]}.{name}")
        write_atomic(path, (store.folder(node.product, receipt.key) / name).read_bytes())
        yield path
