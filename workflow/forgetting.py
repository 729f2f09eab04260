"""Dropping a product on purpose: how a person forces it to be made again."""

from __future__ import annotations

from pathlib import Path

from workflow.node import Node
from workflow.settle import PUBLISHED, graph, next_key
from workflow.store.files import remove_tree
from workflow.store.locks import held
from workflow.store.store import Store


def forget(recipe: str, product: str) -> str:
    """Drop a product of a recipe, finished or half made, so that the next build makes it again.

    `product` is a name of the graph or of a published file. The recipe's products behind it lose their
    receipts, not their folders: they are made again only if the new one differs in content.

    Returns:
        What was removed, one line each.

    Raises:
        BuildError: No such recipe or product.
    """
    store = Store.here()
    node = graph(recipe).node(PUBLISHED.get(product, (product,))[0])
    receipt = store.file(node.product, node.address, ".json")
    known = store.receipt(node.product, node.address)
    key = known.key if known else next_key(store, node)
    if key is None:
        return f"{recipe}: {product} is not built, there is nothing to forget"
    with held(store.lock(node.product, key), f"{node.product} {node.address[:8]}"):
        for path in _behind(store, recipe, node):
            path.unlink(missing_ok=True)
        doomed = [receipt, store.stamp(node.product, node.address), store.folder(node.product, key)]
        used = [path.parent for path in store.pieces.glob(f"{node.product}/*/{key}.*")]
        there = [path for path in [*doomed, store.work(key), *used] if path.exists()]
        for path in there:  # the receipt first: a killed `forget` leaves nothing that looks built
            remove_tree(path)
    removed = [f"removed {path}" for path in there]
    return "\n".join(removed) or f"{recipe}: {product} is not built, there is nothing to forget"


def _behind(store: Store, recipe: str, node: Node) -> list[Path]:
    """Receipts of the recipe's products that are made from `node`, the last first."""
    products = {found.address: found for found in graph(recipe).products.values()}
    behind = [
        found
        for found in products.values()
        if found.address != node.address and any(n.address == node.address for n in found.closure())
    ]
    return [store.file(found.product, found.address, ".json") for found in reversed(behind)]
