"""Two recipes, or a recipe and its last build, field by field and product by product: `tunemake diff`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workflow.changes import ABSENT, Change, shown
from workflow.comparison import Comparison
from workflow.earlier import Drawn, LastBuild, Other, in_results
from workflow.errors import BuildError
from workflow.fields import flat
from workflow.graph import Draw, Graph
from workflow.node import Node
from workflow.recipe.load import named
from workflow.state import in_flow
from workflow.store.store import Store


def compare(one: str, other: str, store: Store) -> str:
    """What differs between two graphs, from `one` to `other`; a last build always comes first.

    Args:
        one: A recipe's name, recipes/<recipe>.yaml, or results/<recipe> for its last build.
        other: The same, of what it is compared with; one of the two is a recipe.
        store: Where the plans of the last build are.

    Raises:
        BuildError: No such recipe, nothing was built of it, or both are last builds.
    """
    if _is_built(other):
        one, other = other, one
    if _is_built(other):
        raise BuildError(f"{one} and {other} are both last builds; one of the two must be a recipe")
    draw, name = _recipe(other, store)
    before, execution = _before(one, store)
    found = Comparison(draw, name, before)
    how = _execution(execution, found.graph) if execution else []
    nodes = in_flow(found.graph.products.values(), found.names)
    fields = [*_fields(found, nodes), *((change, ["how it runs; no product"]) for change in how)]
    return "\n".join([f"{one} -> {other}", "", *_table(fields), "", *_products(found, nodes)])


def _is_built(what: str) -> bool:
    shown = in_results(Path(what))
    return shown is not None and not shown[1]


def _recipe(what: str, store: Store) -> tuple[Draw, str]:
    path = Path(what)
    folder, name = named(path) if path.suffix == ".yaml" else (Path("recipes"), what)
    return Draw(store, folder), name


def _before(what: str, store: Store) -> tuple[Other, Graph | None]:
    if not _is_built(what):
        draw, name = _recipe(what, store)
        graph = draw.recipe(name)
        return Drawn(graph), graph
    shown = in_results(Path(what))
    last = LastBuild(store, shown[0] if shown else what)
    if not last.starts:
        raise BuildError(f"{what}: nothing was published there yet; build it first")
    return last, None


def _execution(old: Graph, new: Graph) -> list[Change]:
    before, after = (dict(flat(g.recipe.execution.model_dump(mode="json"))) for g in (old, new))
    return [
        Change(f"execution.{key}", _shown(before[key]), _shown(value))
        for key, value in after.items()
        if before[key] != value
    ]


def _shown(value: object) -> str:
    return ABSENT if value is None else shown(value)


def _fields(found: Comparison, nodes: list[Node]) -> list[tuple[Change, list[str]]]:
    """Each change once, with the names of the products that it changes by itself."""
    owners: dict[Change, list[str]] = {}
    for node in nodes:
        for change in found.own(node):
            owners.setdefault(change, []).append(found.names[node.address])
    return list(owners.items())


def _table(fields: list[tuple[Change, list[str]]]) -> list[str]:
    if not fields:
        return ["no field differs"]
    texts = [(str(change), ", ".join(names)) for change, names in fields]
    width = max(len(text) for text, _ in texts)
    return [f"{text:<{width}}  {names}" for text, names in texts]


def _products(found: Comparison, nodes: list[Node]) -> Iterator[str]:
    width = max((len(found.names[node.address]) for node in nodes), default=0)
    for node in nodes:
        yield f"{found.names[node.address]:<{width}}  {_product(found, node)}"
    for name in sorted(found.other.starts.keys() - found.graph.products.keys()):
        yield f"{name:<{width}}  {found.other.starts[name].address[:8]}  only in the first"


def _product(found: Comparison, node: Node) -> str:
    ref = found.before(node)
    if ref is None:
        return f"{node.address[:8]}  only in the second"
    if not found.differs(node):
        return f"{node.address[:8]}  the same"
    reasons = [*dict.fromkeys(change.field for change in found.own(node)), *found.inputs(node)]
    return f"{ref.address[:8]} -> {node.address[:8]}  {', '.join(reasons)}"
