"""Making a product a second time, elsewhere and otherwise, to see whether its bytes come out the same.

As `nix build --rebuild` does. The second time is later, in a fresh process with another hash seed, time zone,
working directory, temporary folder and output path, and without the pieces that the first left.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.devices import claimed
from workflow.disk import one_line
from workflow.errors import BuildError
from workflow.progress import duration
from workflow.store.build import Job, Make, Resources, filled, source
from workflow.store.files import read_json, remove_tree
from workflow.store.lineage import lineage
from workflow.store.locks import held
from workflow.store.records import Receipt
from workflow.store.store import MANIFEST, Store, read_manifest

_SPAWN = multiprocessing.get_context("spawn")
SHOWN = 40
"""Bytes of each side that are shown from the first difference on."""


def rebuild(store: Store, receipt: Receipt, make: Make) -> str:
    """Make a product again and compare; its inputs and sources must be whole.

    Returns:
        One line: it came out the same.

    Raises:
        BuildError: It came out different (the first file and position are named), or could not be made.
    """
    began, label = time.monotonic(), f"{receipt.product} {receipt.address[:8]}"
    place = store.root.absolute() / "again" / secrets.token_hex(8)
    with held(place.with_suffix(".lock"), label):
        try:
            with one_line(place):
                job = _job(store, receipt, place)
            with claimed(job.resources.gpus), _otherwise(place):
                _in_fresh_process(make, job, place / "elsewhere", label)
            _compare(store.folder(receipt.product, receipt.key), job.out, label)
        finally:
            remove_tree(place)
            place.with_suffix(".lock").unlink(missing_ok=True)
    return f"{label}: made again in {duration(time.monotonic() - began)}, every byte is the same"


def _job(store: Store, receipt: Receipt, place: Path) -> Job:
    """The job as it was, except for its place and the pieces."""
    plan, where = store.plan(receipt.product, receipt.address), store.where(receipt.product, receipt.address)
    inputs = {role: store.receipt(ref.product, ref.address) for role, ref in plan.inputs.items()}
    there = {role: found for role, found in inputs.items() if found}
    record = store.run_record(receipt.product, receipt.key)
    ran: dict[str, Any] = read_json(record) if record.exists() else {}
    for name in ("out", "work", "pieces", "tmp", "elsewhere"):
        (place / name).mkdir(parents=True)
    return Job(
        slice=plan.slice,
        inputs={role: store.folder(r.product, r.key).absolute() for role, r in there.items()},
        sources={role: source(where, role, digest) for role, digest in plan.sources.items()},
        out=place / "out",
        work=place / "work",
        pieces=place / "pieces",
        execution=where["execution"],
        resources=Resources(ran.get("threads") or os.cpu_count() or 1, ran.get("gpus", 0)),
        run_records={role: store.run_record(r.product, r.key).absolute() for role, r in there.items()},
        lineage=lineage(store, plan),
    )


@contextmanager
def _otherwise(place: Path) -> Iterator[None]:
    """Environment variables that a new process gets for the block: nothing in them may decide bytes."""
    seed = str(1 + secrets.randbelow(1 << 31))  # also another than that of this process
    other = {"PYTHONHASHSEED": seed, "TZ": "Asia/Kathmandu", "TMPDIR": str(place / "tmp")}
    before = {name: os.environ.get(name) for name in other}
    os.environ.update(other)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _in_fresh_process(make: Make, job: Job, folder: Path, label: str) -> None:
    receiving, sending = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_run, args=(make, job, folder, sending))
    process.start()
    sending.close()
    try:
        refused = receiving.recv()
    except EOFError:
        refused = "it ended without a word, see above"
    finally:
        process.join()
        receiving.close()
    if refused:
        raise BuildError(f"{label}: cannot be made again: {refused}")


def _run(make: Make, job: Job, folder: Path, answer: Any) -> None:
    """Make the product in this process; answer with why not, or None."""
    from workflow.death import die_with_parent

    die_with_parent()
    os.chdir(folder)
    try:
        with one_line(job.out):
            filled(make, job)
    except BuildError as error:
        answer.send(str(error))
    else:
        answer.send(None)


def _compare(first: Path, second: Path, label: str) -> None:
    before, after = read_manifest(first), read_manifest(second)
    for name in sorted(before.files.keys() | after.files.keys()):
        if before.files.get(name) == after.files.get(name):
            continue
        if name not in before.files or name not in after.files:
            time = "second" if name not in before.files else "first"
            raise BuildError(f"{label}: is not reproducible: {name} came out only the {time} time")
        raise BuildError(
            f"{label}: is not reproducible: {name} differs {_difference(first / name, second / name)}"
        )
    if before.counts != after.counts:
        raise BuildError(f"{label}: is not reproducible: the counts in {MANIFEST} differ, its files do not")


def _difference(first: Path, second: Path) -> str:
    """Where two files part, and what each has there."""
    position = 0
    with first.open("rb") as one, second.open("rb") as two:
        while True:
            a, b = one.read(1 << 20), two.read(1 << 20)
            if a != b or not a:
                break
            position += len(a)
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return (
        f"at byte {position + same}: {a[same : same + SHOWN]!r}, the second time {b[same : same + SHOWN]!r}"
    )
