"""A graph of today against another one: what changed in each product, and what only follows from that."""

from __future__ import annotations

from workflow.changes import Change, differences
from workflow.earlier import Other, matched, side_of
from workflow.graph import Draw
from workflow.node import Node
from workflow.state import names
from workflow.store.records import InputRef


class Comparison:
    """The products of a recipe, each beside the product of `other` in the same role."""

    def __init__(self, draw: Draw, recipe: str, other: Other):
        """Match the graphs.

        Raises:
            BuildError: The recipe is wrong.
        """
        self.graph, self.names, self.other = draw.recipe(recipe), names(draw, recipe), other
        self.matched = matched(self.graph.products, other)
        self._changes: dict[str, list[Change]] = {}

    def before(self, node: Node) -> InputRef | None:
        """The product of the other graph; None if it has none in that role."""
        return self.matched.get(node.address)

    def differs(self, node: Node) -> bool:
        """Whether the other graph has another product there, or none."""
        ref = self.before(node)
        return ref is None or ref.address != node.address

    def changes(self, node: Node) -> list[Change]:
        """What differs in the product itself, not in what it is made from."""
        if node.address not in self._changes:
            ref = self.before(node)
            old = self.other.side(ref) if ref and self.differs(node) else None
            name = self.names[node.address]
            self._changes[node.address] = differences(name, old, side_of(node)) if old else []
        return self._changes[node.address]

    def own(self, node: Node) -> list[Change]:
        """`changes` without what was said of a product behind it already (a report shows every field)."""
        said = {change for inner in _behind(node) for change in self.changes(inner)}
        return [change for change in self.changes(node) if change not in said]

    def inputs(self, node: Node) -> list[str]:
        """Names of the inputs that differ."""
        if self.before(node) is None:
            return []
        return [self.names[inner.address] for inner in node.inputs.values() if self.differs(inner)]

    def soft(self, node: Node) -> list[str]:
        """Names of the products whose sources changed, if nothing but contents of sources changed here.

        They may turn out as before: then `node` is not made again.
        """
        changed = [inner for inner in _behind(node) if self.changes(inner)]
        hard = any(change.digests is None for inner in [*changed, node] for change in self.changes(inner))
        return [] if hard else [self.names[inner.address] for inner in changed]


def _behind(node: Node) -> list[Node]:
    """What a node is made from."""
    return node.closure()[:-1]
