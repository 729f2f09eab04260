"""Which products and folders of a store are needed, given what is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from workflow.errors import BuildError
from workflow.store.leases import Ref
from workflow.store.records import Plan, Receipt, key_from
from workflow.store.store import Store


@dataclass(frozen=True)
class Live:
    """Products by address, folders by key; both as (product, 32 hex digits)."""

    refs: set[Ref] = field(default_factory=set)
    keys: set[Ref] = field(default_factory=set)


def live(store: Store, asked: Iterable[Ref]) -> Live:
    """`asked` and all that it is made from, by plan; and the folders these have, or would find if built.

    Raises:
        BuildError: A plan is damaged, so that what it needs is not known.
    """
    found, queue = Live(), list(asked)
    plans: dict[Ref, Plan] = {}
    while queue:
        ref = queue.pop()
        if ref in found.refs:
            continue
        found.refs.add(ref)
        if store.file(*ref, ".plan.json").exists():
            plans[ref] = store.plan(*ref)
            queue += [(inner.product, inner.address) for inner in plans[ref].inputs.values()]
    receipts = {ref: _receipt(store, ref) for ref in found.refs}
    for ref, receipt in receipts.items():
        if receipt:
            found.keys.add((ref[0], receipt.key))
        if ref in plans and (key := _key(plans[ref], receipts)):
            found.keys.add((ref[0], key))
    return found


def _receipt(store: Store, ref: Ref) -> Receipt | None:
    try:
        return store.receipt(*ref)
    except BuildError:
        return None  # damaged: its folder is known by what it is made from


def _key(plan: Plan, receipts: dict[Ref, Receipt | None]) -> str | None:
    def content(role: str) -> str | None:
        inner = plan.inputs[role]
        receipt = receipts.get((inner.product, inner.address))
        return receipt.manifest.content if receipt else None

    return key_from(plan, content)
