"""What of many graphs is there: quick looks at the store that validate nothing and write nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.node import Node
from workflow.products import VERSIONS
from workflow.recipe.model import RecipeBase
from workflow.settle import next_key
from workflow.store.address import ADDRESS
from workflow.store.files import read_json
from workflow.store.store import MANIFEST, Store

_HEAD = re.compile(
    rb'\{"address":"(%b)","digest":"[0-9a-f]+","key":"(%b)",' % (ADDRESS.encode(), ADDRESS.encode())
)
"""How the canonical JSON of a receipt begins."""


class Look:
    """What a store has of nodes; each address is looked at once."""

    def __init__(self, store: Store):
        """Look into `store`."""
        self.store = store
        self._keys: dict[str, str | None] = {}
        self._linked: dict[str, str | None] = {}

    def key(self, product: str, address: str) -> str | None:
        """The key of a product that is built, as `Store.built` has it; else None."""
        if address not in self._keys:
            self._keys[address] = self._read(product, address)
        return self._keys[address]

    def _read(self, product: str, address: str) -> str | None:
        folder = f"{self.store.root}/{product}"
        try:
            descriptor = os.open(f"{folder}/{address}.json", os.O_RDONLY)
            try:
                head = _HEAD.match(os.read(descriptor, 256))
            finally:
                os.close(descriptor)
            if not head or head[1] != address.encode():
                return None
            os.stat(f"{folder}/{(key := head[2].decode())}/{MANIFEST}")
        except OSError:
            return None
        return key

    def linked(self, node: Node) -> str | None:
        """The key of a product that is not built but known: its inputs are those of another one."""
        if node.address not in self._linked:
            self._linked[node.address] = self._find(node)
        return self._linked[node.address]

    def _find(self, node: Node) -> str | None:
        try:
            key = next_key(
                self.store, node, lambda inner: self.key(inner.product, inner.address) or self.linked(inner)
            )
        except BuildError:  # a damaged record: the build says so
            return None
        return key if key and self.store.has(node.product, key) else None

    def needed(self, targets: Iterable[Node]) -> dict[str, Node]:
        """What a build of `targets` makes or links, inputs first: address -> node.

        A missing product behind a finished one is not needed.
        """
        found: dict[str, Node] = {}
        seen: set[str] = set()

        def visit(node: Node) -> None:
            if node.address in seen or self.key(node.product, node.address):
                return
            seen.add(node.address)
            for inner in node.inputs.values():
                visit(inner)
            found[node.address] = node

        for target in targets:
            visit(target)
        return found

    def size(self, node: Node) -> int | None:
        """Bytes of a finished product; None if it is not built or its receipt is damaged."""
        if not self.key(node.product, node.address):
            return None
        try:
            receipt = read_json(self.store.file(node.product, node.address, ".json"))
            return sum(int(record["bytes"]) for record in receipt["manifest"]["files"].values())
        except (BuildError, KeyError, TypeError, AttributeError):
            return None


def names(draw: Draw, recipe: str) -> dict[str, str]:
    """Address -> name of every product that a recipe needs; `other/merged` is one of another recipe."""
    graph = draw.recipe(recipe)
    base = graph.recipe.model.base
    found: dict[str, str] = {}
    for name, node in graph.products.items():
        if not (isinstance(base, RecipeBase) and name in ("tokenizer", "model")):
            found.setdefault(node.address, name)
    for other in graph.others:
        for address, name in names(draw, other).items():
            found.setdefault(address, name if "/" in name else f"{other}/{name}")
    return found


def in_flow(nodes: Iterable[Node], known: Mapping[str, str]) -> list[Node]:
    """All that `nodes` are made from and they themselves, in the order of the flow: other recipes first.

    Args:
        nodes: What is wanted.
        known: Names by address, as `names` orders them: the recipe's own, then its base's, then that one's.
    """
    found = {inner.address: inner for node in nodes for inner in node.closure()}
    recipes = list(dict.fromkeys(name.rpartition("/")[0] for name in known.values()))
    kinds = list(VERSIONS)

    def rank(node: Node) -> tuple[int, int, str]:
        name = known[node.address]
        return -recipes.index(name.rpartition("/")[0]), kinds.index(node.product), name

    return sorted((node for address, node in found.items() if address in known), key=rank)
