"""What a product came from, down to the sources: the plans and receipts behind it."""

from __future__ import annotations

from dataclasses import dataclass

from workflow.errors import BuildError
from workflow.store.records import InputRef, Plan
from workflow.store.store import Store


@dataclass(frozen=True)
class Step:
    """One product: what was asked for, and which folder it turned out to be; "" where that is gone."""

    address: str
    key: str
    plan: Plan


def lineage(store: Store, plan: Plan) -> dict[str, tuple[Step, ...]]:
    """Role -> everything behind that input and, last, the input; what the store forgot is left out."""
    return {role: tuple(_behind(store, ref, {}).values()) for role, ref in plan.inputs.items()}


def _behind(store: Store, ref: InputRef, found: dict[str, Step]) -> dict[str, Step]:
    """Address -> step of a product and of all it was made from, inputs first."""
    if ref.address in found:
        return found
    try:
        plan, receipt = store.plan(ref.product, ref.address), store.receipt(ref.product, ref.address)
    except BuildError:  # freed or damaged: a page and a card say what is known
        return found
    for inner in plan.inputs.values():
        _behind(store, inner, found)
    found[ref.address] = Step(ref.address, receipt.key if receipt else "", plan)
    return found
