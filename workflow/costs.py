"""What making a product took before, and what a build will take: from the records of earlier runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.earlier import plan_of
from workflow.errors import BuildError
from workflow.fields import flat
from workflow.node import Node
from workflow.progress import duration
from workflow.state import Look
from workflow.store.files import read_json
from workflow.store.records import InputRef

NEWEST = 100
"""Finished products of a kind among which the most similar one is looked for."""


@dataclass(frozen=True)
class Cost:
    """What one run took: seconds, and on what."""

    seconds: float
    machine: str
    similar: bool = False

    def __str__(self) -> str:
        label = "a similar one took" if self.similar else "last time"
        return f"{label} {duration(self.seconds)} on {self.machine}"


class Costs:
    """Costs of products of one store; each kind of product is searched once."""

    def __init__(self, look: Look):
        """Read the run records of the store that `look` looks into."""
        self.look, self.store = look, look.store
        self._kinds: dict[str, list[tuple[frozenset[tuple[str, str]], Cost]]] = {}

    def of(self, node: Node, earlier: InputRef | None = None) -> Cost | None:
        """What making `node` took in its own or the last build, else what the most similar one took."""
        refs = [InputRef(product=node.product, address=node.address), *([earlier] if earlier else [])]
        for ref in refs:
            cost = self._of(ref) if ref.product == node.product else None
            if cost:
                return cost
        return self._nearest(node)

    def _of(self, ref: InputRef, similar: bool = False) -> Cost | None:
        key = self.look.key(ref.product, ref.address)
        return cost_in(self.store.run_record(ref.product, key), similar) if key else None

    def _nearest(self, node: Node) -> Cost | None:
        """The product of its kind with the most values, sources and inputs in common, or the newest."""
        if node.product not in self._kinds:
            self._kinds[node.product] = list(self._known(node.product))
        own = _values(node.slice, node.digests, {role: inner.address for role, inner in node.inputs.items()})
        best = max(self._kinds[node.product], key=lambda known: len(known[0] & own), default=None)
        return best[1] if best else None

    def _known(self, product: str) -> Iterable[tuple[frozenset[tuple[str, str]], Cost]]:
        """Values and cost of the newest finished products of a kind, newest first."""
        receipts = sorted(
            (self.store.root / product).glob(f"{'[0-9a-f]' * 32}.json"), key=_time, reverse=True
        )
        for path in receipts[:NEWEST]:
            ref = InputRef(product=product, address=path.stem)
            plan, cost = plan_of(self.store, ref), self._of(ref, similar=True)
            if plan and cost:
                inputs = {role: inner.address for role, inner in plan.inputs.items()}
                yield _values(plan.slice, plan.sources, inputs), cost


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _values(*parts: dict[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((place, repr(value)) for part in parts for place, value in flat(part))


def cost_in(path: Path, similar: bool = False) -> Cost | None:
    """The cost in a run record; None if there is none, or it is damaged: nothing depends on one."""
    try:
        record = read_json(path)
        return Cost(float(record["seconds"]), _machine(record), similar)
    except (BuildError, OSError, KeyError, TypeError, ValueError):
        return None


def _machine(record: dict[str, Any]) -> str:
    """`1 x H200`, or on a machine without GPUs `2 cores`."""
    gpus = int(record.get("gpus") or 0)
    if gpus:
        name = str(record.get("device") or "GPU").removeprefix("NVIDIA ")
        return f"{gpus} x {name}"
    cores = int(record.get("threads") or 1)
    return f"{cores} core" + ("s" if cores > 1 else "")


def total(costs: Iterable[Cost | None]) -> str:
    """`about 2 h 05 min`, of all together; says so where some are not known."""
    known = list(costs)
    seconds = sum(cost.seconds for cost in known if cost)
    missing = sum(cost is None for cost in known)
    if missing == len(known):
        return "nobody knows yet how long it takes"
    return f"about {duration(seconds)}" + (f" and {missing} of unknown length" if missing else "")
