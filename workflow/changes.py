"""What differs between two products in the same role, in the words of the recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflow.fields import field_of, flat, source_of
from workflow.store.records import Plan

SHOWN = 48
"""Characters shown of a value."""
ABSENT = "not set"


@dataclass(frozen=True)
class Side:
    """One of the two: what decides the product, and where its sources lie."""

    plan: Plan
    paths: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """A field, or the content of a source file, that is not what it was."""

    field: str
    old: str
    new: str
    source: bool = False

    def __str__(self) -> str:
        between = ":" if self.source else ""
        return f"{self.field}{between} {self.old} -> {self.new}"


def differences(name: str, old: Side, new: Side) -> list[Change]:
    """What decides `new` and did not decide `old`, inputs left out.

    Args:
        name: The product's name in the graph; one of another recipe is `recipe/name`.
        old: The product before.
        new: The product now.
    """
    recipe, _, own = name.rpartition("/")
    if old.plan.product != new.plan.product:
        found = [Change("model.base", _kind(old.plan), _kind(new.plan))]
    else:
        found = [*_version(old.plan, new.plan), *_fields(own, old, new), *_sources(own, old, new)]
    prefix = f"{recipe}: " if recipe else ""
    return [Change(prefix + c.field, c.old, c.new, c.source) for c in found]


def _kind(plan: Plan) -> str:
    if plan.product != "model":
        return f"the {plan.product} model of a recipe"
    return str(plan.slice.get("hub", "a model folder"))


def _version(old: Plan, new: Plan) -> list[Change]:
    if old.version == new.version:
        return []
    return [Change(f"tunemake's version of {new.product}", str(old.version), str(new.version))]


def _fields(name: str, old: Side, new: Side) -> list[Change]:
    before, after = fields(name, old.plan), fields(name, new.plan)
    return [
        Change(field, shown(before.get(field, ABSENT)), shown(after.get(field, ABSENT)))
        for field in [*after, *(field for field in before if field not in after)]
        if before.get(field, ABSENT) != after.get(field, ABSENT)
    ]


def fields(name: str, plan: Plan) -> dict[str, Any]:
    """Field of the recipe -> value, of everything in a plan's slice; what is null counts as not set."""
    found = ((field_of(plan.product, name, place), value) for place, value in flat(plan.slice))
    return {field: value for field, value in found if field and value is not None}


def _sources(name: str, old: Side, new: Side) -> list[Change]:
    before, after = old.plan.sources, new.plan.sources
    roles = [*after, *(role for role in before if role not in after)]
    return [
        _source(source_of(new.plan.product, name), role, old, new)
        for role in roles
        if before.get(role) != after.get(role)
    ]


def _source(section: str, role: str, old: Side, new: Side) -> Change:
    """`dataset.test: data/test.jsonl (sha256 30bb74a1) -> (sha256 91ac0f3e)`."""
    sides = [(side.paths.get(role), side.plan.sources.get(role)) for side in (old, new)]
    (was, old_digest), (now, new_digest) = [
        (path and os.path.relpath(path), digest) for path, digest in sides
    ]
    if not old_digest or not new_digest:
        state = ("there", "gone") if old_digest else ("not there", "there")
        return Change(f"{section}: {now or was or role}", *state, source=True)
    if was and now and was != now:
        return Change(section, f"{was} ({_short(old_digest)})", f"{now} ({_short(new_digest)})", source=True)
    return Change(f"{section}: {now or role} changed", _short(old_digest), _short(new_digest), source=True)


def _short(digest: str) -> str:
    return f"sha256 {digest[:8]}"


def shown(value: Any) -> str:
    """A value as one writes it in a recipe, cut to a readable length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
