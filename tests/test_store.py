"""The store: one maker per key, whole folders or none, receipts that say what really went in."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.store.address import canonical, sha256_of
from workflow.store.build import Job, Resources, build, verify
from workflow.store.files import digests_of, remove_tree, write_atomic, write_if_changed
from workflow.store.records import InputRef, Manifest, Plan, Receipt
from workflow.store.store import Store

FORK = multiprocessing.get_context("fork")


def planned(store: Store, product: str = "toy", inputs: dict[str, Plan] | None = None, **slice: Any) -> Plan:
    data = store.root / "data.txt"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_text("data")
    refs = {role: InputRef(product=p.product, address=p.address) for role, p in (inputs or {}).items()}
    plan = Plan(product=product, version=1, slice=slice, inputs=refs, sources={"data": sha256_of(data)})
    store.write_plan(plan.product, plan.address, plan.model_dump(mode="json"))
    store.write_where(product, plan.address, {"sources": {"data": str(data)}, "execution": {}})
    return plan


class Toy:
    """A product that says how often it was made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, job: Job) -> dict[str, Any]:
        self.made += 1
        (job.out / "sub").mkdir()
        (job.out / "sub/file.txt").write_text(str(sorted(job.slice.items())))
        return {"bytes": 3}


def run(store: Store, plan: Plan, make: Any) -> Receipt:
    return build(store, plan.product, plan.address, make, Resources())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def folder_of(store: Store, receipt: Receipt) -> Path:
    return store.folder(receipt.product, receipt.key)


def test_the_second_build_reuses(store: Store) -> None:
    plan, make = planned(store, a=1), Toy()
    first = run(store, plan, make)
    receipt = store.file("toy", plan.address, ".json")
    before = receipt.read_bytes(), receipt.stat().st_mtime_ns
    store.stamp("toy", plan.address).unlink()
    assert run(store, plan, make) == first
    assert make.made == 1
    assert (receipt.read_bytes(), receipt.stat().st_mtime_ns) == before
    assert store.stamp("toy", plan.address).read_bytes() == before[0]
    assert store.built("toy", plan.address) == first
    assert not store.work(first.key).exists()
    for name in ("manifest.json", "sub/file.txt"):
        assert (folder_of(store, first) / name).stat().st_mode & 0o777 == 0o444
    record = json.loads(store.run_record("toy", first.key).read_bytes())
    assert record["seconds"] >= 0
    assert "host" not in before[0].decode()


def test_a_receipt_is_deterministic(tmp_path: Path) -> None:
    bodies = []
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        plan = planned(store, a=1)
        run(store, plan, Toy())
        bodies.append(store.file("toy", plan.address, ".json").read_bytes())
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("damage", ["flip", "delete", "add", "manifest", "no manifest"])
def test_a_damaged_folder_is_moved_aside_and_made_again(store: Store, damage: str) -> None:
    plan, make = planned(store), Toy()
    first = run(store, plan, make)
    folder = folder_of(store, first)
    path = folder / ("manifest.json" if "manifest" in damage else "sub/file.txt")
    path.chmod(0o644)
    if damage in ("delete", "no manifest"):
        path.unlink()
    elif damage == "add":
        (folder / "more").write_text("x")
    else:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    for _ in range(2):
        assert run(store, plan, make) == first
    assert make.made == 2
    verify(folder)
    assert len(list(folder.parent.glob("*.broken-*"))) == 1


def test_inputs_and_early_cut_off(store: Store) -> None:
    rows = planned(store, "rows", a=1)
    shards = planned(store, "shards", {"rows": rows}, b=1)
    make = Toy()
    with pytest.raises(BuildError, match="input rows is not in the store; build again"):
        run(store, shards, make)
    assert make.made == 0
    first = run(store, rows, lambda job: Toy()(Job({}, {}, {}, job.out, job.work, job.pieces)))
    done = run(store, shards, make)
    other = planned(store, "rows", a=2)  # another address, the same bytes
    run(store, other, lambda job: Toy()(Job({}, {}, {}, job.out, job.work, job.pieces)))
    again = run(store, planned(store, "shards", {"rows": other}, b=1), make)
    assert (again.key, make.made) == (done.key, 1)
    path = folder_of(store, first) / "sub/file.txt"
    path.chmod(0o644)
    path.write_text("damaged")
    third = planned(store, "shards", {"rows": rows}, b=2)
    with pytest.raises(BuildError, match=r"file.txt: damaged.*build again"):
        run(store, third, make)
    assert store.built("rows", rows.address) is None  # so Snakemake makes it again
    run(store, rows, lambda job: Toy()(Job({}, {}, {}, job.out, job.work, job.pieces)))
    run(store, third, make)
    assert make.made == 2


def test_the_key_is_what_is_in_the_folder_now(store: Store) -> None:
    """Two addresses share a folder; it is made anew with other bytes; the other's receipt is older."""
    rows = planned(store, "rows")
    shards = planned(store, "shards", {"rows": rows})
    first = run(store, rows, Toy())
    old = run(store, shards, Toy())
    receipt = store.file("rows", rows.address, ".json").read_bytes()
    remove_tree(folder_of(store, first))

    def otherwise(job: Job) -> dict[str, Any]:
        (job.out / "file").write_text("other bytes")
        return {}

    run(store, rows, otherwise)
    store.file("rows", rows.address, ".json").write_bytes(receipt)
    assert run(store, shards, Toy()).key != old.key


def test_a_source_that_changed_or_went(store: Store) -> None:
    plan, make = planned(store), Toy()
    (store.root / "data.txt").write_text("DATA")
    with pytest.raises(BuildError, match="the file changed since the build was planned"):
        run(store, plan, make)
    (store.root / "data.txt").unlink()
    with pytest.raises(BuildError, match="the file is gone since the build was planned"):
        run(store, plan, make)
    store.write_where("toy", plan.address, {"sources": {}, "execution": {}})
    with pytest.raises(BuildError, match="source data: the file is gone"):
        run(store, plan, make)
    store.file("toy", plan.address, ".where.json").write_text("[]")
    with pytest.raises(BuildError, match=r"where.json: damaged"):
        run(store, plan, make)
    assert make.made == 0


@pytest.mark.parametrize("error", [BuildError("no"), KeyboardInterrupt(), MemoryError()])
def test_a_failed_make_leaves_its_work_and_nothing_else(store: Store, error: BaseException) -> None:
    def fail(job: Job) -> dict[str, Any]:
        (job.out / "half").write_text("x")
        (job.work / "checkpoint").write_text("y")
        raise error

    plan = planned(store)
    with pytest.raises(type(error)):
        run(store, plan, fail)
    left = {path.name.partition(".")[2] for path in (store.root / "toy").iterdir()}
    assert left == {"plan.json", "where.json", "lock"}
    [work] = (store.root / "work").iterdir()
    assert (work / "checkpoint").read_text() == "y"

    def finish(job: Job) -> dict[str, Any]:
        return {"resumed": (job.work / "checkpoint").read_text()}

    assert run(store, plan, finish).manifest.counts == {"resumed": "y"}


def test_counts_that_json_cannot_say(store: Store) -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        run(store, planned(store), lambda job: {"loss": "\ud800"})
    assert not [path for path in (store.root / "toy").iterdir() if path.is_dir()]


def test_the_remains_of_a_dead_holder_are_swept(store: Store) -> None:
    plan = planned(store)
    key = run(store, plan, Toy()).key
    remove_tree(store.folder("toy", key))
    remains = store.folder("toy", f"{key}.tmp")
    remains.mkdir()
    (remains / "half").write_text("x")
    (remains / "half").chmod(0o444)
    assert "half" not in run(store, plan, Toy()).manifest.files
    assert not remains.exists()


def _racer(root: Path, address: str, log: Path, gate: Any) -> None:
    def make(job: Job) -> dict[str, Any]:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.02)
        (job.out / "file").write_text("x")
        return {}

    gate.wait()
    build(Store(root), "toy", address, make, Resources())


def test_two_builds_make_a_product_once(store: Store, tmp_path: Path) -> None:
    for number in range(20):
        plan, log, gate = planned(store, n=number), tmp_path / f"{number}.log", FORK.Barrier(2)
        pair = [FORK.Process(target=_racer, args=(store.root, plan.address, log, gate)) for _ in range(2)]
        for process in pair:
            process.start()
        for process in pair:
            process.join(20)
        assert [process.exitcode for process in pair] == [0, 0]
        assert log.read_text() == "made\n"
        assert store.built("toy", plan.address) is not None


def _hang(root: Path, address: str, started: Any) -> None:
    def make(job: Job) -> dict[str, Any]:
        (job.out / "half").write_text("x")
        started.set()
        time.sleep(60)
        return {}

    build(Store(root), "toy", address, make, Resources())


def test_a_killed_holder_does_not_stop_the_next(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    plan, started = planned(store), FORK.Event()
    holder = FORK.Process(target=_hang, args=(store.root, plan.address, started))
    holder.start()
    assert started.wait(20)
    assert holder.pid
    timer = threading.Timer(0.3, os.kill, (holder.pid, signal.SIGKILL))
    timer.start()
    began = time.monotonic()
    receipt = run(store, plan, Toy())
    assert 0.2 < time.monotonic() - began < 10
    assert set(receipt.manifest.files) == {"sub/file.txt"}
    holder.join()


def _rewrite(path: Path, bodies: list[bytes], rounds: int) -> None:
    for _ in range(rounds):
        for body in bodies:
            write_atomic(path, body)


def test_write_atomic_shows_old_or_new(tmp_path: Path) -> None:
    path, bodies = tmp_path / "file", [b"a" * 300_000, b"b" * 200_000]
    write_atomic(path, bodies[0])
    writers = [FORK.Process(target=_rewrite, args=(path, bodies, 30)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in bodies
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_write_atomic_by_two_threads(tmp_path: Path) -> None:
    threads = [threading.Thread(target=_rewrite, args=(tmp_path / "f", [b"x", b"y"], 20)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_write_if_changed(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    assert write_if_changed(path, b"a")
    os.utime(path, ns=(1, 1))
    assert not write_if_changed(path, b"a")
    assert path.stat().st_mtime_ns == 1
    assert write_if_changed(path, b"b")


def test_a_plan_that_was_tampered_with(store: Store) -> None:
    plan, path = planned(store, a=1), None
    path = store.file("toy", plan.address, ".plan.json")
    body = path.read_bytes()
    for damaged, message in (
        (body.replace(b'"a":1', b'"a":2'), "damaged"),
        (body[:-10], "damaged"),
        (body.replace(b'"version"', b'"Version"'), "not a valid plan"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(BuildError, match=message):
            run(store, plan, Toy())
    with pytest.raises(BuildError, match="no such plan"):
        store.plan("toy", "0" * 32)
    other = store.file("rows", plan.address, ".plan.json")
    write_atomic(other, body)
    with pytest.raises(BuildError, match="damaged"):
        store.plan("rows", plan.address)


def test_receipts_are_validated(store: Store) -> None:
    plan = planned(store)
    run(store, plan, Toy())
    path = store.file("toy", plan.address, ".json")
    whole = json.loads(path.read_bytes())
    for change in ({"key": "../../etc"}, {"extra": 1}, {"address": "0" * 32}, {"manifest": {}}):
        path.write_bytes(canonical({**whole, **change}))
        with pytest.raises(BuildError, match=r"\.json: (not a valid receipt|damaged)"):
            store.receipt("toy", plan.address)


def test_canonical_json() -> None:
    assert canonical({"b": 1, "a": "中"}) == '{"a":"中","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("inf"))


def test_digests_and_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    found = digests_of(tmp_path)
    assert found["a"] == found["b"]
    manifest = Manifest.model_validate({"files": found, "counts": {}}).model_dump()
    (tmp_path / "manifest.json").write_bytes(canonical(manifest) + b"\n")
    verify(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(BuildError, match="b: cannot be read"):
        verify(tmp_path)
