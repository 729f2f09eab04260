"""What must hold of a store at every moment, and what two stores have in common when nothing went wrong."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path

from workspace import Folder

from workflow.errors import BuildError
from workflow.node import Node
from workflow.products import PRODUCTS
from workflow.store.build import verify
from workflow.store.files import read_json
from workflow.store.records import Receipt
from workflow.store.store import MANIFEST, Store

RECORD = re.compile(r"([0-9a-f]{32})(\.plan\.json|\.where\.json|\.json|\.stamp|\.run\.json)")
VARYING = re.compile(
    r"(^|/)(\.snakemake|logs|made\.log|[^/]*\.(run\.json|lock)|\.lock)$"
    r"|^store/(digests\.sqlite|leases|roots|pieces)"
)
"""What may differ between two builds of the same, or stays behind on purpose: locks, logs, caches."""
OWN = re.compile(r"^(store/report/.*|.*\.where\.json|results/[^/]*/(report\.html|built\.json))$")
"""What shows run records, or where the sources lie."""


def torn(root: Path) -> list[str]:
    """What is wrong with what has a final name in the store of `root`; nothing, one hopes."""
    store = Store(root / "store")
    found = []
    for path in store.root.glob("*/*"):
        if path.parent.name in PRODUCTS:
            try:
                _look(store, path.parent.name, path)
            except FileNotFoundError:
                continue  # went while we looked
            except (BuildError, ValueError, AssertionError) as error:
                found.append(f"{path}: {error}")
    return found


def _look(store: Store, product: str, path: Path) -> None:
    if re.fullmatch("[0-9a-f]{32}", path.name):
        verify(path)
    if not (record := RECORD.fullmatch(path.name)):
        return
    address, kind = record.groups()
    if kind == ".plan.json":
        store.plan(product, address)
    elif kind == ".where.json":
        store.where(product, address)
    else:
        value = read_json(path)
    if kind in (".json", ".stamp"):
        receipt = Receipt.model_validate(value)
        assert (receipt.product, receipt.address) == (product, address), "of another address"
        body = receipt.manifest.body
        manifest = store.folder(product, receipt.key) / MANIFEST
        assert manifest.exists() and manifest.read_bytes() == body, "its folder is another one"


def snapshot(root: Path, own: bool = False) -> dict[str, bytes]:
    """Relative path -> bytes of all there is; `own`: also what is one build's own."""
    found = {}
    for path in sorted(_below(root)):
        name = path.relative_to(root).as_posix()
        if VARYING.search(name) or (OWN.match(name) and not own):
            continue
        found[name] = _body(path)
    return found


def _below(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        if entry.name not in (".snakemake", "logs"):
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path))


def _body(path: Path) -> bytes:
    if path.is_symlink() and not os.path.isabs(os.readlink(path)):
        return b"-> " + os.readlink(path).encode()
    return b"" if path.is_dir() else path.read_bytes()


def different(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names that are missing, added or have other bytes."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def take(place: Folder, node: Node, to: Path) -> None:
    """Copy what making one product needs to a new folder: its plan and its inputs."""
    _copy(place, to, node, ".plan.json", ".where.json")
    for inner in node.inputs.values():
        take_product(place, inner, to)


def take_product(place: Folder, node: Node, to: Path) -> None:
    """Copy one finished product to another store."""
    store, receipt = Store(to / "store"), place.store.built(node.product, node.address)
    assert receipt
    _copy(place, to, node, ".json", ".stamp")
    folder = store.folder(node.product, receipt.key)
    if not folder.exists():
        shutil.copytree(place.store.folder(node.product, receipt.key), folder, symlinks=True)
        record = place.store.run_record(node.product, receipt.key)
        shutil.copy2(record, store.run_record(node.product, receipt.key))


def _copy(place: Folder, to: Path, node: Node, *kinds: str) -> None:
    for kind in kinds:
        target = Store(to / "store").file(node.product, node.address, kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(place.store.file(node.product, node.address, kind), target)


def soaking() -> Iterator[int]:
    """0, 1, 2, ... for TUNEMAKE_SOAK_SECONDS, an hour unless it says otherwise."""
    until = time.monotonic() + float(os.environ.get("TUNEMAKE_SOAK_SECONDS", 3600))
    yield from takewhile(lambda _: time.monotonic() < until, count())
