"""`tunemake verify`: from what is published back to the sources, every digest on the way, offline.

The way: published copy, receipt, folder, plan, key, and the same for every input. A source that changed since
breaks no link: the result is of the earlier file, and that is said.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from workflow.disk import size
from workflow.errors import BuildError
from workflow.progress import Progress, duration
from workflow.settle import FOLDERS, PUBLISHED, may_show
from workflow.sources import file_digest
from workflow.store.address import sha256_of
from workflow.store.files import Digest, files_in, read_json
from workflow.store.leases import Ref, leased
from workflow.store.records import Plan, Receipt, key_of
from workflow.store.store import MANIFEST, Store, read_manifest

MB = 1_000_000
LONG = 1000 * MB
"""Reading this much takes long enough for a person to be told how far it is."""


def _anew(store: Store, ref: Ref) -> str:
    """What makes a product again that no build may ask for, since all that is made from it is there."""
    return f"make it anew with `snakemake -f {store.stamp(*ref)}`"


@contextmanager
def _to_be_made_anew(store: Store, ref: Ref) -> Iterator[None]:
    try:
        yield
    except BuildError as error:
        reason = str(error).removesuffix("; delete it and build again")
        raise BuildError(f"{reason}; {_anew(store, ref)}") from None


@dataclass
class Chain:
    """Products behind what is verified, nearest first, and notes on what changed since."""

    plans: dict[Ref, Plan] = field(default_factory=dict)
    receipts: dict[Ref, Receipt] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0


def verify(store: Store, path: Path, rebuild: str | None = None) -> str:
    """Verify a published file, or all of results/<recipe>.

    Args:
        store: The store.
        path: A file or link in results/<recipe>/, or that folder.
        rebuild: A product of the chain that is also made a second time and compared; "" for the one that
            `path` shows; None for none.

    Returns:
        A summary for people: what was read, and sources that changed since.

    Raises:
        BuildError: Names the first link that is broken, and what to do.
    """
    began = time.monotonic()
    shown = _shown(path)
    refs = [(entry["product"], entry["address"]) for entry in shown.values()]
    if not os.access(store.root, os.W_OK):
        return "\n".join(_report(path, _walked(store, path, shown, refs), began))
    with leased(store, refs):
        chain = _walked(store, path, shown, refs)
        lines = _report(path, chain, began)
        if rebuild is not None:
            lines += _rebuilt(store, chain, rebuild, refs)
    return "\n".join(lines)


def _walked(store: Store, path: Path, shown: dict[str, Any], refs: list[Ref]) -> Chain:
    """First what is cheap to look at, then every byte."""
    chain = Chain()
    for ref in refs:
        _walk(store, ref, chain)
    folder = path if path.name not in shown else path.parent
    for name, entry in shown.items():
        _check_published(store, folder / name, entry, chain)
    _check_files(store, chain)
    _check_sources(store, chain)
    return chain


def _shown(path: Path) -> dict[str, Any]:
    """Published name -> its entry of built.json, for one name or all."""
    whole = (path / "built.json").exists()
    record = (path if whole else path.parent) / "built.json"
    if not record.exists():
        raise BuildError(f"{path}: nothing that a build published; name a file in results/<recipe>/")
    built = read_json(record)
    chosen = built if whole else {path.name: built.get(path.name)}
    for name, entry in chosen.items():
        if not (isinstance(entry, dict) and {"product", "address", "key"} <= entry.keys()):
            what = "not published by a build" if entry is None else f"{record} is damaged"
            raise BuildError(f"{record.parent / name}: {what}; build it again")
        if not may_show(name, entry["product"]):
            raise BuildError(f"{record}: damaged or edited at {name!r}; delete it and build again")
    return dict(chosen)


def _walk(store: Store, ref: Ref, chain: Chain) -> None:
    """Check the records of a product, then those of its inputs."""
    queue = [ref]
    while queue:
        ref = queue.pop(0)
        if ref in chain.plans:
            continue
        chain.plans[ref] = plan = store.plan(*ref)
        with _to_be_made_anew(store, ref):
            chain.receipts[ref] = _receipt(store, ref)
        queue += [(inner.product, inner.address) for inner in plan.inputs.values()]
    for ref, plan in chain.plans.items():
        _check_key(store, chain, ref, plan)


def _receipt(store: Store, ref: Ref) -> Receipt:
    """A receipt that agrees with its stamp and with the manifest in its folder."""
    receipt, path, stamp = store.receipt(*ref), store.file(*ref, ".json"), store.stamp(*ref)
    if receipt is None:
        raise BuildError(f"{path}: no such receipt")
    if stamp.exists() and stamp.read_bytes() != path.read_bytes():
        raise BuildError(f"{stamp}: damaged, it is not a copy of its receipt")
    folder = store.folder(receipt.product, receipt.key)
    if not folder.is_dir():
        raise BuildError(f"{folder}: no such folder, but its receipt is there")
    if read_manifest(folder) != receipt.manifest:
        raise BuildError(f"{path}: not of the manifest that is in {folder}, which was made again since")
    return receipt


def _check_key(store: Store, chain: Chain, ref: Ref, plan: Plan) -> None:
    inputs = {role: chain.receipts[i.product, i.address] for role, i in plan.inputs.items()}
    key = key_of(plan, {role: receipt.manifest.content for role, receipt in inputs.items()})
    if key != chain.receipts[ref].key:
        raise BuildError(
            f"{store.file(*ref, '.json')}: it was made from other inputs (its key is "
            f"{chain.receipts[ref].key[:8]}, its inputs give {key[:8]}); {_anew(store, ref)}"
        )


def _check_published(store: Store, path: Path, entry: dict[str, Any], chain: Chain) -> None:
    """Compare a published copy or link with the product that it shows."""
    receipt = chain.receipts[entry["product"], entry["address"]]
    file, folder = PUBLISHED[path.name][1], store.folder(receipt.product, receipt.key)
    again = "publish it again: delete it and build"
    if receipt.key != entry["key"]:
        raise BuildError(f"{path}: shows what {receipt.product} was before it was made again; {again}")
    if not path.exists():
        raise BuildError(f"{path}: gone, or a link to what is gone; {again}")
    if path.name in FOLDERS:
        if not path.samefile(folder / file):
            raise BuildError(f"{path}: not a link to {folder / file}; {again}")
    elif file not in receipt.manifest.files or sha256_of(path) != receipt.manifest.files[file].sha256:
        raise BuildError(f"{path}: changed since it was published; {again}")


def _check_files(store: Store, chain: Chain) -> None:
    """Read every byte of every folder, nearest first, a folder that two receipts name once."""
    receipts = {(r.product, r.key): r for r in chain.receipts.values()}
    chain.bytes = sum(record.bytes for r in receipts.values() for record in r.manifest.files.values())
    progress, done = Progress("verify", chain.bytes // MB, "MB"), 0
    # The cache is told what was read, so that the next build does not take a rotten file for the old one.
    read = partial(_digest, read=partial(file_digest, cache=store.digests, trust=False))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (product, key), receipt in receipts.items():
            folder, anew = store.folder(product, key), _anew(store, (product, receipt.address))
            found = {path.relative_to(folder).as_posix() for path in files_in(folder)} - {MANIFEST}
            if unknown := sorted(found - receipt.manifest.files.keys()):
                raise BuildError(f"{folder / unknown[0]}: unknown to the manifest; {anew}")
            names = sorted(receipt.manifest.files)
            for name, digest in zip(names, pool.map(read, (folder / name for name in names)), strict=True):
                wanted = receipt.manifest.files[name]
                if digest != wanted.sha256:
                    _differs(chain, receipt, folder / name, digest is None, anew)
                done += wanted.bytes
                if chain.bytes > LONG:
                    progress.reached(done // MB)
            chain.files += len(names) + 1


def _digest(path: Path, read: Digest = sha256_of) -> str | None:
    return read(path) if path.is_file() else None


def _differs(chain: Chain, receipt: Receipt, path: Path, missing: bool, remedy: str) -> None:
    """A file that is not what the manifest says: a broken link, or the user's own model, changed since."""
    if path.is_symlink() and chain.plans[receipt.product, receipt.address].sources:
        state = "is gone" if missing else "has changed"
        chain.notes.append(f"{path.resolve()} {state} since: results are of the earlier file")
        return
    if path.is_symlink():  # of a commit of a hub's: it must not change
        remedy = f"delete {path.resolve()} in the hub's cache and {remedy}"
    state = "missing" if missing else "damaged"
    raise BuildError(f"{path}: {state}, it is not what the manifest says; {remedy}")


def _check_sources(store: Store, chain: Chain) -> None:
    for ref, plan in chain.plans.items():
        where = _where(store, ref) if plan.sources else {}
        for role, digest in sorted(plan.sources.items()):
            path = Path(where.get(role, f"{plan.product}: where its source {role} lies"))
            found = _digest(path)
            if found != digest:
                state = "has changed" if found else "is gone" if role in where else "is not known"
                chain.notes.append(f"{path} {state} since: results are of the earlier file")


def _where(store: Store, ref: Ref) -> dict[str, Any]:
    """Role -> path of a product's sources; none where that was lost, as nothing depends on it."""
    try:
        return dict(store.where(*ref)["sources"])
    except BuildError:
        return {}


def _report(path: Path, chain: Chain, began: float) -> list[str]:
    what = f"{len(chain.receipts)} products, {chain.files} files, {size(chain.bytes)}"
    took = duration(time.monotonic() - began)
    return [*dict.fromkeys(chain.notes), f"{path}: whole back to its sources: {what} read in {took}"]


def _rebuilt(store: Store, chain: Chain, product: str, shown: Iterable[Ref]) -> Iterator[str]:
    from workflow.products import MAKERS
    from workflow.rebuild import rebuild

    wanted = [ref for ref in chain.plans if ref[0] == product] if product else list(dict.fromkeys(shown))
    if not wanted:
        there = ", ".join(sorted({ref[0] for ref in chain.plans}))
        raise BuildError(f"--rebuild {product}: nothing here is made from it; there are: {there}")
    for ref in wanted:
        yield rebuild(store, chain.receipts[ref], MAKERS[ref[0]])
