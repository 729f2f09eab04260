"""Who uses a store: each results folder says in `roots/` what it shows and what it last asked for.

`tunemake gc` keeps what any root needs, so that one user's cleaning spares another's results.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from workflow.errors import BuildError
from workflow.store.address import address_of, canonical
from workflow.store.files import read_json, write_if_changed
from workflow.store.leases import Ref
from workflow.store.store import Store


@dataclass(frozen=True)
class Root:
    """What one results folder published, or what its newest draw planned."""

    path: Path
    folder: Path
    recipe: str
    refs: frozenset[Ref]

    @property
    def gone(self) -> bool:
        """Whether the results folder is no longer there; one that may not be looked at is."""
        try:
            self.folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False


def write_root(
    store: Store,
    results_folder: Path,
    recipe: str,
    planned: Iterable[Ref] | None = None,
    published: Iterable[Ref] | None = None,
) -> None:
    """Say in the store what `results_folder` (results/<recipe>) shows, or what its newest draw asks for.

    Does nothing in a store that may only be read.
    """
    if store.root.exists() and not os.access(store.root, os.W_OK):
        return
    folder = os.path.realpath(results_folder)
    for kind, refs in (("planned", planned), ("published", published)):
        if refs is not None:
            body = {"folder": folder, "recipe": recipe, "products": sorted(set(refs))}
            write_if_changed(
                store.root / "roots" / f"{address_of(folder)}.{kind}.json", canonical(body) + b"\n"
            )


def roots(store: Store) -> Iterator[Root]:
    """All roots of a store.

    Raises:
        BuildError: One is damaged.
    """
    for path in sorted((store.root / "roots").glob("*.json")):
        found = read_json(path)
        try:
            refs = frozenset((str(product), str(address)) for product, address in found["products"])
            yield Root(path, Path(found["folder"]), str(found["recipe"]), refs)
        except (KeyError, TypeError, ValueError):
            raise BuildError(f"{path}: damaged; delete it, and build its recipe again") from None
