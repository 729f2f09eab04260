"""What differs between two products in the same role, in the words of the recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    """A field, or the content of a source file, that is not what it was.

    `digests`: of a source file that changed, before and after (SHA-256 in hex; None where there was none).
    """

    field: str
    old: str = ""
    new: str = ""
    digests: tuple[str | None, str | None] | None = None

    def __str__(self) -> str:
        """E.g. `tuning.r 8 -> 16`, `dataset.test: data/test.jsonl changed (sha256 30bbce94 -> 91ac07d1)`."""
        text = f"{self.field} {self.old} -> {self.new}" if self.old or self.new else self.field
        if self.digests is None:
            return text
        return f"{text} (sha256 {' -> '.join((digest or 'none')[:8] for digest in self.digests)})"


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
    return [replace(change, field=prefix + change.field) for change in found]


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
    found = ((field_of(plan.product, name, plan.slice, place), value) for place, value in flat(plan.slice))
    return {field: value for field, value in found if field and value is not None}


def _sources(name: str, old: Side, new: Side) -> list[Change]:
    before, after = old.plan.sources, new.plan.sources
    roles = [*after, *(role for role in before if role not in after)]
    return [
        _source(source_of(new.plan.product, name, new.plan.slice, role), role, old, new)
        for role in roles
        if before.get(role) != after.get(role)
    ]


def _source(section: str, role: str, old: Side, new: Side) -> Change:
    """The file's path where it is the same, else both."""
    digests = old.plan.sources.get(role), new.plan.sources.get(role)
    was, now = (os.path.relpath(side.paths[role]) if role in side.paths else "" for side in (old, new))
    if all(digests) and was and now and was != now:
        return Change(f"{section}:", was, now, digests)
    what = "changed" if all(digests) else "is new" if digests[1] else "is gone"
    return Change(f"{section}: {now or was or role} {what}", digests=digests)


def shown(value: Any) -> str:
    """A value as one writes it in a recipe, cut to a readable length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
