"""Why a product cannot be made: what is known before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.node import Node
from workflow.recipe.model import UNPINNED
from workflow.store.files import read_json

FROM_HUB = ("rows", "model", "tokenizer")
"""Products that may be made from what the hub has."""


def problems_of(node: Node) -> list[str]:
    """Why a product that is not built cannot be; one line each."""
    found = [
        f"{path}: no such file; put the file with SHA-256 {node.digests[role]} there"
        for role, path in node.sources.items()
        if not path.is_file()
    ]
    place = "the revision" if node.product == "rows" else "model.revision"
    for repository in _unpinned(node.slice) if node.product in FROM_HUB else ():
        found.append(
            f"{place} of {repository} is unpinned: run `tunemake lock {node.recipe}`, or write the "
            "commit there"
        )
    own = node.sources.get("deepspeed")
    return [*found, *_contradictions(node, own)] if own and own.is_file() else found


def _contradictions(node: Node, own: Path) -> list[str]:
    """What a DeepSpeed file of the user's own says against the recipe, before anything is made for it."""
    from workflow.zero import check_users_own

    try:
        check_users_own(node.slice, node.execution, read_json(own))
    except BuildError as error:
        return [str(error)]
    return []


def _unpinned(value: Any) -> Iterator[str]:
    """What a slice takes from the hub without a commit."""
    if isinstance(value, dict):
        if value.get("revision") == UNPINNED:
            yield str(value.get("hub"))
        for inner in value.values():
            yield from _unpinned(inner)
