"""`tunemake verify`: whole results pass, and every damage on the way to the sources is named."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_store import Toy, planned, run
from workspace import Folder, folder, pretend

from workflow.errors import BuildError
from workflow.publish import publish
from workflow.rebuild import rebuild
from workflow.settle import PUBLISHED, settle
from workflow.store.address import canonical
from workflow.store.build import Job, stamp
from workflow.store.records import Plan, Receipt
from workflow.store.store import MANIFEST, Store
from workflow.verification import verify

NAMES = ("voted.jsonl", "scores.json", "adapter")


def published(root: Path) -> Folder:
    """A folder in which the recipe small is built and published, as the store sees it."""
    place = folder(root)
    pretend(place, "small")
    for node in place.graph("small").node("scores").closure():
        sources = {role: str(path) for role, path in node.sources.items()}
        place.store.write_where(node.product, node.address, {"sources": sources, "execution": {}})
    (place.path("results/small/.addresses")).mkdir(parents=True)
    for name in NAMES:
        node = place.graph("small").node(PUBLISHED[name][0])
        settle(place.store, node)
        publish(place.store, place.path("results/small"), name, place.store.stamp(node.product, node.address))
    return place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return published(tmp_path_factory.mktemp("whole") / "it")


@pytest.fixture
def place(whole: Folder, tmp_path: Path) -> Folder:
    return whole.copy(tmp_path / "it")


def receipt_of(place: Folder, name: str) -> Receipt:
    node = place.graph("small").node(name)
    receipt = place.store.built(node.product, node.address)
    assert receipt
    return receipt


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


def test_whole_results_pass(place: Folder) -> None:
    printed = verify(place.store, place.path("results/small"))
    assert "results/small: whole back to its sources: " in printed and "\n" not in printed
    one = verify(place.store, place.path("results/small/voted.jsonl"))
    count = int(one.split(" products")[0].rpartition(" ")[2])
    assert count == len(place.graph("small").node("voted").closure())
    assert "whole" in verify(place.store, place.path("results/small/adapter"))


def test_what_is_not_published(place: Folder) -> None:
    for path in ("results/small/report.html", "results/small/nothing", "results/none", "recipes/small.yaml"):
        with pytest.raises(BuildError, match="published|not published"):
            verify(place.store, place.path(path))


def chain_files(place: Folder) -> list[Path]:
    """All that voted.jsonl rests on: the copy, and of each product behind it records and files."""
    files = [place.path("results/small/voted.jsonl")]
    for node in place.graph("small").node("voted").closure():
        receipt = place.store.built(node.product, node.address)
        assert receipt
        kinds = (".json", ".stamp", ".plan.json")
        files += [place.store.file(node.product, node.address, kind) for kind in kinds]
        files += [path for path in place.store.folder(node.product, receipt.key).rglob("*") if path.is_file()]
    return files


def test_a_flipped_bit_anywhere_is_found(place: Folder) -> None:
    dice, target = random.Random(1), place.path("results/small/voted.jsonl")
    for path in chain_files(place):
        body = path.read_bytes()
        for _ in range(3):
            at, bit = dice.randrange(len(body)), 1 << dice.randrange(8)
            spoil(path, lambda body, at=at, bit=bit: body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :])  # type: ignore[misc]
            with pytest.raises(BuildError) as raised:
                verify(place.store, target)
            assert str(path) in str(raised.value) or path.name in str(raised.value), (path, at, bit)
            path.write_bytes(body)
        spoil(path, lambda body: body[: len(body) // 2])
        with pytest.raises(BuildError):
            verify(place.store, target)
        path.write_bytes(body)
    assert "whole" in verify(place.store, target)


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "key": lambda found: found.update(key="0" * 32),
    "counts": lambda found: found["manifest"]["counts"].update(rows=7),
    "digest of a file": lambda found: next(iter(found["manifest"]["files"].values())).update(sha256="0" * 64),
    "size": lambda found: next(iter(found["manifest"]["files"].values())).update(bytes=1),
    "digest": lambda found: found.update(digest="0" * 32),
    "no digest": lambda found: found.pop("digest"),
    "product": lambda found: found.update(product="rows"),
    "address": lambda found: found.update(address="0" * 32),
}


@pytest.mark.parametrize("field", EDITS)
def test_a_receipt_edited_by_hand(place: Folder, field: str) -> None:
    node = place.graph("small").node("voted")
    path = place.store.file("voted", node.address, ".json")
    found = json.loads(path.read_bytes())
    EDITS[field](found)
    path.write_bytes(canonical(found) + b"\n")
    with pytest.raises(BuildError, match=rf"{node.address}\.json: .*(damaged|not a valid)"):
        verify(place.store, place.path("results/small"))
    assert place.store.built("voted", node.address) is None
    with pytest.raises(BuildError, match="not in the store"):
        publish(
            place.store, place.path("results/small"), "voted.jsonl", place.store.stamp("voted", node.address)
        )


def test_a_receipt_forged_with_its_digest(place: Folder) -> None:
    """Even a receipt with the right digest must fit its inputs: another product's folder is not taken."""
    voted, other = receipt_of(place, "voted"), receipt_of(place, "scores")
    forged = Receipt(product="voted", address=voted.address, key=other.key, manifest=other.manifest)
    folder = place.store.folder("voted", other.key)
    place.store.folder("scores", other.key).rename(folder)
    place.store.write_receipt(forged)
    stamp(place.store, forged)
    with pytest.raises(BuildError, match="made from other inputs"):
        verify(place.store, place.path("results/small/voted.jsonl"))


def _gone(path: Path) -> None:
    path.unlink()


BROKEN: dict[str, tuple[str, Callable[[Folder], Any]]] = {
    "copy changed": (
        r"results/small/voted\.jsonl: changed since it was published",
        lambda place: spoil(place.path("results/small/voted.jsonl"), lambda body: body + b"\n"),
    ),
    "copy gone": (
        r"voted\.jsonl: gone",
        lambda place: _gone(place.path("results/small/voted.jsonl")),
    ),
    "folder gone": (
        "no such folder, but its receipt is there",
        lambda place: place.store.folder("shards", receipt_of(place, "shards_test").key).rename(
            place.path("x")
        ),
    ),
    "receipt gone": (
        "no such receipt",
        lambda place: _gone(place.store.file("rows", receipt_of(place, "rows_test").address, ".json")),
    ),
    "plan gone": (
        "no such plan",
        lambda place: _gone(place.store.file("rows", receipt_of(place, "rows_test").address, ".plan.json")),
    ),
    "file added": (
        r"more: unknown to the manifest",
        lambda place: (place.store.folder("voted", receipt_of(place, "voted").key) / "more").write_text("x"),
    ),
    "space in a manifest": (
        r"manifest\.json: damaged or edited \(not as it was written\)",
        lambda place: spoil(
            place.store.folder("voted", receipt_of(place, "voted").key) / MANIFEST,
            lambda body: body.replace(b":", b": "),
        ),
    ),
    "published note edited": (
        r"shows what voted was before",
        lambda place: spoil(
            place.path("results/small/built.json"),
            lambda body: body.replace(receipt_of(place, "voted").key.encode(), b"0" * 32),
        ),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_first_broken_link_is_named(place: Folder, case: str) -> None:
    message, spoiled = BROKEN[case]
    spoiled(place)
    with pytest.raises(BuildError, match=message) as raised:
        verify(place.store, place.path("results/small/voted.jsonl"))
    assert ";" in str(raised.value) and "\n" not in str(raised.value)


def test_a_source_that_changed_is_said_and_breaks_nothing(place: Folder) -> None:
    node = place.graph("small").node("rows_test")
    where = place.store.where("rows", node.address)
    test, train = place.path("recipes/data/test.jsonl"), place.path("recipes/data/train.jsonl")
    for name, path in (("rows_test", test), ("rows_train", train)):
        address = place.graph("small").node(name).address
        place.store.write_where("rows", address, {**where, "sources": {"data": str(path)}})
    test.write_text(test.read_text() + "\n")
    train.unlink()
    printed = verify(place.store, place.path("results/small/voted.jsonl")).splitlines()
    assert f"{train} is gone since: results are of the earlier file" in printed
    assert f"{test} has changed since: results are of the earlier file" in printed
    assert "whole back to its sources" in printed[-1]


def test_a_read_only_store_can_be_verified(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    before = sorted(place.store.root.rglob("*"))
    assert "whole" in verify(place.store, place.path("results/small"))
    assert sorted(place.store.root.rglob("*")) == before


def test_a_model_outside_the_store(tmp_path: Path) -> None:
    """A user's own model may change, and that is said; a file in the hub's cache must not."""
    store, recipe = Store(tmp_path / "store"), tmp_path / "results/x"
    (recipe / ".addresses").mkdir(parents=True)
    plan = planned(store, "adapter")
    data = store.root / "data.txt"

    def link(job: Job) -> dict[str, Any]:
        (job.out / "weights").symlink_to(data)
        return {}

    run(store, plan, link)
    publish(store, recipe, "adapter", store.stamp("adapter", plan.address))
    assert "whole" in verify(store, recipe / "adapter")
    data.write_text("DATA")
    assert f"{data} has changed since" in verify(store, recipe)
    hub = Plan(product="adapter", version=1, slice={"hub": "a/b"}, inputs={}, sources={})
    store.write_plan("adapter", hub.address, hub.model_dump(mode="json"))
    store.write_where("adapter", hub.address, {"sources": {}, "execution": {}})
    run(store, hub, link)
    publish(store, recipe, "adapter", store.stamp("adapter", hub.address))
    data.write_text("data")
    with pytest.raises(BuildError, match=rf"weights: damaged.*delete {data} in the hub's cache"):
        verify(store, recipe / "adapter")


def by_time(job: Job) -> dict[str, Any]:
    (job.out / "steady").write_text("x")
    (job.out / "z").write_text(f"0123456789{time.time_ns()}")
    return {}


def by_set_order(job: Job) -> dict[str, Any]:
    (job.out / "names").write_text(" ".join({f"name{i}" for i in range(100)}))
    return {}


def by_path(job: Job) -> dict[str, Any]:
    (job.out / "path").write_text(str(job.out))
    return {}


def by_working_folder(job: Job) -> dict[str, Any]:
    (job.out / "path").write_text(os.getcwd())
    return {}


def by_zone(job: Job) -> dict[str, Any]:
    (job.out / "zone").write_text(time.strftime("%H", time.localtime(0)))
    return {}


def by_seed(job: Job) -> dict[str, Any]:
    (job.out / "seed").write_text(os.environ["PYTHONHASHSEED"])
    return {}


def by_name(job: Job) -> dict[str, Any]:
    (job.out / str(time.time_ns())).write_text("x")
    return {}


def by_count(job: Job) -> dict[str, Any]:
    return {"time": time.time_ns()}


def steady(job: Job) -> dict[str, Any]:
    (job.out / "file").write_text(
        job.sources["data"].read_text() + (job.inputs["in"] / "sub/file.txt").read_text()
    )
    return {"n": 1}


def refusing(job: Job) -> dict[str, Any]:
    if job.out.name == "out":
        raise BuildError("not twice")
    return {}


def made(store: Store, make: Callable[[Job], dict[str, Any]]) -> Receipt:
    rows = planned(store, "rows")
    run(store, rows, Toy())
    return run(store, planned(store, "shards", {"in": rows}), make)


PLANTED = [
    (by_time, r"z differs at byte \d+: b'\d+', the second time b'\d+'"),
    (by_set_order, "names differs at byte"),
    (by_path, "path differs at byte"),
    (refusing, "cannot be made again: not twice"),
]
MORE = [
    (by_working_folder, "path differs at byte"),
    (by_seed, "seed differs at byte"),
    (by_zone, "zone differs at byte 1"),
    (by_name, r"\d+ came out only the first time"),
    (by_count, "the counts in manifest.json differ"),
]
CASES = [*PLANTED, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]


@pytest.mark.parametrize(("make", "message"), CASES)
def test_what_varies_is_found(
    tmp_path: Path, make: Callable[[Job], dict[str, Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    store = Store(tmp_path / "store")
    receipt = made(store, make)
    before = {path: path.lstat().st_mtime_ns for path in store.root.glob("shards/*")}
    with pytest.raises(BuildError, match=message):
        rebuild(store, receipt, make)
    assert {path: path.lstat().st_mtime_ns for path in store.root.glob("shards/*")} == before
    assert not list((store.root / "again").iterdir())


def test_what_is_steady_passes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert "every byte is the same" in rebuild(store, made(store, steady), steady)


@pytest.mark.slow
def test_rebuild_by_the_command(tmp_path: Path) -> None:
    """Real rows and overlap, built, verified and made a second time."""
    import subprocess
    import sys

    from workspace import environment

    place = folder(tmp_path / "it")
    place.build("results/small/overlap.json")
    for arguments, lines in (([], 1), (["--rebuild"], 2), (["--rebuild", "rows"], 3)):
        ran = subprocess.run(
            [sys.executable, "-m", "workflow", "verify", "results/small/overlap.json", *arguments],
            cwd=place.root,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, len(ran.stdout.splitlines())) == (0, lines), ran.stdout + ran.stderr
