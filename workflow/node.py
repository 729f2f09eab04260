"""One product of a graph: what decides its bytes, what it is made from, and so its address."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow.products import VERSIONS
from workflow.store.address import address_of
from workflow.store.records import Plan


@dataclass(frozen=True, eq=False)
class Node:
    """One product of the graph."""

    product: str
    slice: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Node] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""  # file of a recipe that asks for it, for messages

    @property
    def asked(self) -> dict[str, Any]:
        """Everything that decides the address, as the plan has it in JSON."""
        inputs = {role: {"product": n.product, "address": n.address} for role, n in self.inputs.items()}
        asked = {"product": self.product, "version": VERSIONS[self.product], "slice": self.slice}
        return {**asked, "inputs": inputs, "sources": self.digests}

    @property
    def plan(self) -> Plan:
        """The same as a validated record."""
        return Plan.model_validate(self.asked)

    @cached_property
    def address(self) -> str:
        """The node's address, 32 hex digits."""
        return address_of(self.asked)

    def closure(self, without: Container[str] = ()) -> list[Node]:
        """This node and all it is made from, inputs first, each address once.

        Args:
            without: Addresses that are left out, with what they are made from.
        """
        seen: dict[str, Node] = {}

        def visit(node: Node) -> None:
            if node.address not in seen and node.address not in without:
                for inner in node.inputs.values():
                    visit(inner)
                seen[node.address] = node

        visit(self)
        return list(seen.values())
