"""What a graph of today is compared with: the last build of a recipe, or another recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from workflow.arms import EXPERIMENTS
from workflow.changes import Side
from workflow.errors import BuildError
from workflow.graph import Graph
from workflow.node import Node
from workflow.rehearsal import REHEARSAL
from workflow.settle import PUBLISHED, RESULTS
from workflow.store.files import read_json
from workflow.store.records import InputRef, Plan
from workflow.store.store import Store


class Other(Protocol):
    """A graph to compare with."""

    @property
    def starts(self) -> Mapping[str, InputRef]:
        """Name in the graph -> product; the rest is found from these by roles."""

    def inputs(self, ref: InputRef) -> Mapping[str, InputRef]:
        """Role -> what a product was made from; empty if nobody knows any more."""

    def side(self, ref: InputRef) -> Side | None:
        """What decided a product; None if nobody knows any more."""


class Drawn:
    """A graph of today, of another recipe."""

    def __init__(self, graph: Graph):
        """Compare with all products of `graph`."""
        self.starts = {name: ref_to(node) for name, node in graph.products.items()}
        self.nodes = graph.nodes

    def inputs(self, ref: InputRef) -> Mapping[str, InputRef]:
        """As drawn."""
        return {role: ref_to(node) for role, node in self.nodes[ref.address].inputs.items()}

    def side(self, ref: InputRef) -> Side | None:
        """As drawn."""
        return side_of(self.nodes[ref.address])


class LastBuild:
    """What results/<recipe>/ shows, and what that was made from, by the plans of the store."""

    def __init__(self, store: Store, recipe: str, results: Path = RESULTS):
        """Read built.json; a recipe that was never published has no starts.

        Raises:
            BuildError: built.json is damaged.
        """
        self.store = store
        self.shown = published(recipe, results)
        self.starts: dict[str, InputRef] = {}
        for name, ref in self.shown.items():
            if name in PUBLISHED:
                self.starts.setdefault(PUBLISHED[name][0], ref)

    def inputs(self, ref: InputRef) -> Mapping[str, InputRef]:
        """From its plan."""
        plan = plan_of(self.store, ref)
        return plan.inputs if plan else {}

    def side(self, ref: InputRef) -> Side | None:
        """From its plan; paths of sources are those of the newest drawing that asked for it."""
        plan = plan_of(self.store, ref)
        if plan is None:
            return None
        try:
            paths = self.store.where(ref.product, ref.address)["sources"]
        except (BuildError, OSError):
            paths = {}
        return Side(plan, {str(role): str(path) for role, path in paths.items()})


def in_results(path: Path) -> tuple[str, str] | None:
    """Recipe and file of results/<recipe>/<file>; the recipe may be a rehearsal, an experiment or an arm.

    The file is empty where the path ends with the recipe; None: it is no such path.
    """
    top, *parts = path.parts or ("",)
    names = 1 + (parts[:1] == [REHEARSAL.rstrip("/")])
    if parts[names - 1 : names] == [EXPERIMENTS.rstrip("/")]:
        names += 1
        names += len(parts) > names and parts[names] not in PUBLISHED  # an arm
    if top != str(RESULTS) or len(parts) < names:
        return None
    return "/".join(parts[:names]), "/".join(parts[names:])


def published(recipe: str, results: Path = RESULTS) -> dict[str, InputRef]:
    """Name under results/<recipe>/ -> the product it shows, newest first; empty if nothing was published.

    Raises:
        BuildError: built.json is damaged.
    """
    path = results / recipe / "built.json"
    if not path.exists():
        return {}
    built = read_json(path)
    try:
        found = {
            name: InputRef(product=entry["product"], address=entry["address"])
            for name, entry in built.items()
        }
    except (ValidationError, KeyError, TypeError, AttributeError):
        raise BuildError(f"{path}: damaged; delete it, the next build writes it again") from None
    return dict(sorted(found.items(), key=lambda item: -_time(path.parent / item[0])))


def _time(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return 0


def ref_to(node: Node) -> InputRef:
    """A node by what was asked for."""
    return InputRef(product=node.product, address=node.address)


def side_of(node: Node) -> Side:
    """What decides a product of today's graph."""
    return Side(node.plan, {role: str(path) for role, path in node.sources.items()})


def plan_of(store: Store, ref: InputRef) -> Plan | None:
    """An earlier plan, read for an explanation: one that is gone or of an unknown form is no error."""
    try:
        return Plan.model_validate(read_json(store.file(ref.product, ref.address, ".plan.json")))
    except (BuildError, ValidationError, OSError):
        return None


def matched(products: Mapping[str, Node], other: Other) -> dict[str, InputRef]:
    """Address of today -> the product of the other graph in the same role.

    Both graphs are walked side by side from the products that have a name in both, inputs by their roles.
    """
    found: dict[str, InputRef] = {}

    def visit(node: Node, ref: InputRef) -> None:
        if node.address in found:
            return
        found[node.address] = ref
        if node.product == ref.product:
            same = node.address == ref.address
            before = {role: ref_to(n) for role, n in node.inputs.items()} if same else other.inputs(ref)
            for role, inner in node.inputs.items():
                if role in before:
                    visit(inner, before[role])

    for name, ref in other.starts.items():
        if name in products:
            visit(products[name], ref)
    return found
