"""results/<recipe>/: what people read. Files are copies, folders are links into the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from workflow.errors import BuildError
from workflow.settle import FOLDERS, PUBLISHED
from workflow.store.address import canonical
from workflow.store.build import intact
from workflow.store.files import read_json, write_atomic
from workflow.store.roots import write_root
from workflow.store.store import Store


def publish(store: Store, folder: Path, name: str, stamp: Path, recipe: str = "") -> Path:
    """Show the product of `stamp` in `folder` (results/<recipe>) under `name`.

    The old file stays readable until the new one is whole. `recipe` is the recipe's name where it is more
    than that of the folder: `rehearsal/<recipe>`, `experiments/<experiment>/<arm>`.

    Raises:
        BuildError: The product is not built, or has no such file.
    """
    product, address = stamp.parent.name, stamp.stem
    receipt = store.built(product, address)
    if receipt is None:
        raise BuildError(f"{store.stamp(product, address)}: {product} is not in the store; build again")
    target, file = folder / name, PUBLISHED[name][1]
    if name in FOLDERS:
        _link(store.folder(product, receipt.key) / file, target)
    elif (source := intact(store, receipt) / file).is_file():
        write_atomic(target, source.read_bytes())
    else:
        raise BuildError(f"{target}: this recipe's {product} has no {name}: {_absent(file)}")
    shown = {"product": product, "address": address, "key": receipt.key}
    _note_built(store, folder, recipe or folder.name, name, shown)
    return target


def _absent(file: str) -> str:
    """Why a finished product does not have a file."""
    return "its rows belong to no groups" if file == "submission.jsonl" else "it was not written"


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    with FileLock(target.parent / ".addresses" / ".lock"):  # so the name is ours, whoever was killed with it
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(source, target.parent))
        temporary.replace(target)


def _note_built(store: Store, folder: Path, recipe: str, name: str, entry: dict[str, Any]) -> None:
    """Update built.json: which address each published file shows, and what making it took."""
    record = store.run_record(entry["product"], entry["key"])
    path = folder / "built.json"
    with FileLock(folder / ".addresses" / ".lock"):
        built = read_json(path) if path.exists() else {}
        built[name] = {**entry, "run": read_json(record) if record.exists() else {}}
        write_atomic(path, canonical(built) + b"\n")
        shown = {(str(shown["product"]), str(shown["address"])) for shown in built.values()}
        write_root(store, folder, recipe, published=shown)
