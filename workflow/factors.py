"""What two arms differ in: everything that decides their scores, defaults filled in, compared node by node.

An address is the digest of a product's version, slice, sources and inputs, and all of these are compared
here, from the scores back to the sources: two arms that differ in nothing listed have equal results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflow.changes import ABSENT, fields, shown
from workflow.fields import source_of
from workflow.node import Node
from workflow.voter_nodes import WEIGHED, WEIGHING

TRAINED, ASKED = "training", "asking and scoring"
"""Where a difference acts."""
UNREAD = {("scores", "overlap")}
"""Inputs that decide whether a product is made, not what is in it."""
BEHIND = {"start": "tuning.initialise"}
"""Role of an input -> the field that asks for it, where no slice shows it."""


@dataclass(frozen=True)
class Difference:
    """A field that two arms have different values of, and where these act."""

    field: str
    old: str
    new: str
    where: str

    def __str__(self) -> str:
        """`prompt.max_length 512 -> 1024, in training`."""
        return f"{self.field} {self.old} -> {self.new}, in {self.where}"


def differences(before: Node, after: Node) -> list[Difference]:
    """All that decides `after` and `before` in different ways, each once; empty for equal addresses."""
    return list(dict.fromkeys(_walk(before, after, _Place("scores", ASKED), set())))


@dataclass(frozen=True)
class _Place:
    """A product's name, as a recipe's graph has it, and the side that it is on."""

    name: str
    where: str
    split: str = "test"

    def of(self, parent: Node, role: str, node: Node) -> _Place:
        """The place of an input."""
        where = TRAINED if parent.product == "adapter" else self.where
        split = "train" if parent.product == "adapter" else self._split(role)
        name = f"source_{split}.{role}" if parent.product == "mixture" and role else f"{node.product}_{split}"
        return _Place(name, where, split)

    def _split(self, role: str) -> str:
        """The split that the rows behind an input are of."""
        if role == "examples":  # shown in a prompt of test rows, they are training rows
            return "train"
        return "validation" if role.startswith((WEIGHED, WEIGHING)) else self.split


def _walk(before: Node, after: Node, place: _Place, seen: set[tuple[str, ...]]) -> Iterator[Difference]:
    pair = before.address, after.address, place.where, place.split
    if before.address == after.address or pair in seen:
        return
    seen.add(pair)
    where = TRAINED if after.product == "adapter" else place.where
    if before.product != after.product:
        yield Difference("model.base", _kind(before), _kind(after), where)
        return
    own = [Difference(field, old, new, where) for field, old, new in _own(before, after, place.name)]
    yield from own
    yield from _roles(before, after, own, where)
    for role, inner in after.inputs.items():
        if role not in before.inputs:
            continue
        if (after.product, role) in UNREAD:
            yield from (Difference(*found, where) for found in _own(before.inputs[role], inner, role))
        else:
            yield from _walk(before.inputs[role], inner, place.of(after, role, inner), seen)


def _kind(node: Node) -> str:
    return (
        f"the {node.product} model of a recipe"
        if node.product != "model"
        else str(node.slice.get("hub", "a folder"))
    )


def _own(before: Node, after: Node, name: str) -> Iterator[tuple[str, str, str]]:
    """Field, old and new value of what decides a product itself, inputs left out."""
    old, new = fields(name, before.plan), fields(name, after.plan)
    for field in dict.fromkeys([*new, *old]):
        if old.get(field) != new.get(field):
            yield field, _shown(old, field), _shown(new, field)
    for role in sorted(before.digests.keys() | after.digests.keys()):
        if before.digests.get(role) != after.digests.get(role):
            yield source_of(after.product, name, after.slice), _file(before, role), _file(after, role)


def _shown(values: Mapping[str, Any], field: str) -> str:
    return shown(values[field]) if field in values else ABSENT


def _file(node: Node, role: str) -> str:
    digest = node.digests.get(role)
    return f"{node.sources[role].name} ({digest[:8]})" if digest else ABSENT


def _roles(before: Node, after: Node, own: list[Difference], where: str) -> Iterator[Difference]:
    """Inputs that only one of the two has: where nothing in the product itself says why, a difference."""
    for role in sorted(before.inputs.keys() ^ after.inputs.keys()):
        if (after.product, role) in UNREAD or own:
            continue
        field = BEHIND.get(role, f"{role} of {after.product}")
        there = ("there", ABSENT) if role in before.inputs else (ABSENT, "there")
        yield Difference(field, *there, where)


def undeclared(found: Iterable[Difference], factors: Iterable[str]) -> list[Difference]:
    """Differences that no factor covers: a field, or a section with all that is in it."""
    declared = tuple(factors)
    return [
        difference
        for difference in found
        if not any(_covers(factor, difference.field) for factor in declared)
    ]


def _covers(factor: str, field: str) -> bool:
    """Whether a factor is a field, a section around it, or `path` in the section whose file differs."""
    return factor == field or field.startswith(f"{factor}.") or factor == f"{field}.path"
