"""`tunemake gc`: what is needed stays, whoever needs it; what goes leaves nothing that looks built."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from test_store import Toy, planned, run
from workspace import Folder, command, environment, folder, pretend

from workflow.cleaning import DAY, Rules, clean, seconds
from workflow.errors import BuildError
from workflow.settle import settle
from workflow.store import leases
from workflow.store.build import Job, Resources, build, verify
from workflow.store.leases import Lease, guard, held_refs, leased
from workflow.store.records import Plan
from workflow.store.roots import roots, write_root
from workflow.store.store import Store

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    """A folder in which the recipe small is built, as the store sees it."""
    place = folder(tmp_path / "it")
    pretend(place, "small")
    return place


def collected(place: Folder, *, delete: bool = True, **rules: Any) -> str:
    return clean(place.store, place.path("recipes"), Rules(delete=delete, **rules))


def products(store: Store) -> set[str]:
    """Folders of the store, as product/key."""
    return {
        f"{path.parent.name}/{path.name}"
        for path in store.root.glob("*/*")
        if re.fullmatch("[0-9a-f]{32}", path.name)
    }


def test_what_a_recipe_of_this_folder_needs_stays(place: Folder) -> None:
    before = products(place.store)
    assert "nothing to clean up" in collected(place)
    assert products(place.store) == before


def test_an_edit_leaves_the_old_products_to_be_deleted(place: Folder) -> None:
    before = products(place.store)
    place.edit("small.yaml", "learning_rate: 3e-3", "learning_rate: 4e-3")
    pretend(place, "small")
    everything = products(place.store)
    printed = collected(place, delete=False)
    assert printed.endswith("`tunemake gc --delete` deletes it") and "adapter" in printed
    assert products(place.store) == everything
    assert "nothing to clean" in collected(place, older_than=DAY)
    assert "deleted" in collected(place)
    left = products(place.store)
    assert left < everything and before - left and not everything - before - left
    assert {name.split("/")[0] for name in before - left} >= {"adapter", "merged", "predictions", "voted"}
    assert {name for name in before if name.startswith(("rows/", "shards/"))} <= left
    needed = {n.address for top in place.graph("small").products.values() for n in top.closure()}
    assert {path.name.partition(".")[0] for path in place.store.root.glob("*/*.plan.json")} == needed
    assert {
        path.name.partition(".")[0]
        for path in place.store.root.glob("*/????????????????????????????????.json")
    } == needed
    assert "nothing to clean" in collected(place)


def test_a_root_keeps_what_another_user_needs(place: Folder, tmp_path: Path) -> None:
    shown, before = tmp_path / "other/results/theirs", products(place.store)
    shown.mkdir(parents=True)
    node = place.graph("small").node("voted")
    write_root(place.store, shown, "theirs", published=[("voted", node.address)])
    for path in place.path("recipes").glob("*.yaml"):
        path.unlink()
    collected(place)
    left = products(place.store)
    needed = {receipt.key for n in node.closure() if (receipt := place.store.built(n.product, n.address))}
    assert {name.split("/")[1] for name in left} == needed and left < before
    shown.rmdir()
    printed = collected(place, delete=False)
    assert f"{shown} is no longer there" in printed and list(roots(place.store))
    assert "nothing to clean" in collected(place, keep=("theirs",)) and list(roots(place.store))
    collected(place)
    assert not products(place.store) and not list(roots(place.store))


def test_a_folder_that_a_needed_address_shares_stays(tmp_path: Path) -> None:
    """Early cut-off: two addresses of one folder, one of them needed."""
    store = Store(tmp_path / "store")
    one, two = planned(store, "rows", a=1), planned(store, "rows", a=2)
    same = lambda job: (job.out / "file").write_text("x") and {}  # noqa: E731
    ends = [planned(store, "shards", {"rows": rows}) for rows in (one, two)]
    receipts = [run(store, plan, same) for plan in (one, two, *ends)]
    assert receipts[2].key == receipts[3].key
    write_root(store, tmp_path, "x", planned=[("shards", ends[1].address)])
    clean(store, tmp_path, Rules(delete=True))
    assert store.built("shards", ends[1].address) and not store.built("shards", ends[0].address)
    assert not store.folder("rows", receipts[0].key).exists()


def test_a_broken_recipe_keeps_what_its_root_names(place: Folder) -> None:
    refs = [(node.product, node.address) for node in place.graph("small").node("voted").closure()]
    place.path("results/small").mkdir(parents=True)
    write_root(place.store, place.path("results/small"), "small", planned=refs)
    place.edit("small.yaml", "lora_alpha", "lora_aplha")
    assert "small.yaml:6:1: tuning.lora_alpha: missing" in collected(place)
    assert all(place.store.built(*ref) for ref in refs)


def test_a_damaged_plan_or_root_stops_it(place: Folder) -> None:
    before = products(place.store)
    plan = place.store.file("voted", place.graph("small").node("voted").address, ".plan.json")
    body = plan.read_bytes()
    plan.write_bytes(body[:-9])
    with pytest.raises(BuildError, match="damaged"):
        collected(place)
    plan.write_bytes(body)
    write_root(place.store, place.root, "x", planned=[])
    [root] = (place.store.root / "roots").iterdir()
    root.write_text("{}")
    with pytest.raises(BuildError, match="damaged"):
        collected(place)
    assert products(place.store) == before


def _work(root: Path, plan: Plan, started: Any, go_on: Any) -> None:
    def make(job: Job) -> dict[str, Any]:
        started.set()
        go_on.wait(60)
        verify(job.inputs["rows"])
        (job.work / "checkpoint").write_text("x")
        (job.out / "file").write_text("x")
        return {}

    build(Store(root), plan.product, plan.address, make, Resources())


@pytest.mark.parametrize("killed", [False, True])
def test_a_running_job_keeps_its_inputs_until_it_ends(tmp_path: Path, killed: bool) -> None:
    store = Store(tmp_path / "store")
    rows = planned(store, "rows")
    shards = planned(store, "shards", {"rows": rows})
    run(store, rows, Toy())
    started, go_on = FORK.Event(), FORK.Event()
    job = FORK.Process(target=_work, args=(store.root, shards, started, go_on))
    job.start()
    assert started.wait(20) and job.pid
    assert "nothing to clean up" in clean(store, tmp_path, Rules(delete=True))
    assert store.built("rows", rows.address) and list((store.root / "work").iterdir())
    if killed:
        os.kill(job.pid, signal.SIGKILL)
    else:
        go_on.set()
    job.join(20)
    assert job.exitcode == (-signal.SIGKILL if killed else 0)
    assert "deleted" in clean(store, tmp_path, Rules(delete=True))
    assert not products(store) and not list((store.root / "work").iterdir())
    assert [path.name for path in (store.root / "leases").iterdir()] == ["guard.lock"]


@pytest.mark.slow
def test_a_real_build_is_left_alone(tmp_path: Path) -> None:
    """Nothing that Snakemake has drawn goes while it runs, though its recipe is gone by then."""
    import subprocess

    place = folder(tmp_path / "it")
    target = "results/small/overlap.json"
    build = subprocess.Popen(
        command(target),
        cwd=place.root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not list(place.store.root.glob("leases/*.lease")) and build.poll() is None:
        time.sleep(0.01)
    seen = set()
    while build.poll() is None:
        with guard(place.store, alone=True):
            seen |= held_refs(place.store)
        clean(place.store, tmp_path / "no recipes", Rules(delete=True))
        time.sleep(0.05)
    printed = build.communicate()[0]
    assert build.returncode == 0, printed
    assert not re.search("not in the store|Error", printed)
    collected(place)
    node = place.graph("small").node("overlap")
    assert {(n.product, n.address) for n in node.closure()} <= seen
    assert all(place.store.built(n.product, n.address) for n in node.closure())
    assert {root.path.name.split(".")[1] for root in roots(place.store)} == {"planned", "published"}


def test_a_holder_may_end_while_leases_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    with leased(store, [("rows", "a" * 32)]):
        assert held_refs(store) == {("rows", "a" * 32)}
        there = [*leases.folder(store).glob("*.lease"), leases.folder(store) / "ended.lease"]
        monkeypatch.setattr(Path, "glob", lambda _, pattern: there if pattern == "*.lease" else [])
        assert held_refs(store) == {("rows", "a" * 32)}


def test_a_lease_names_products_and_goes_with_its_holder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    other = Lease(store)
    other.add([("rows", "a")])
    other.add([("rows", "b")])
    with leased(store, [("shards", "c")]), guard(store, alone=True):
        assert held_refs(store) == {("rows", "a"), ("rows", "b"), ("shards", "c")}
    other.file.close()  # as the kernel does when a process dies
    with guard(store, alone=True):
        assert held_refs(store) == set()
    assert not other.path.exists()


def _interrupted(store: Store, folder: Path, calls: int) -> None:
    """A `gc` that is killed when it is about to remove or rename for the `calls`-th time."""
    left = [calls]

    def counting(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("unlink", "rename", "rmdir"):
        setattr(os, name, counting(getattr(os, name)))
    clean(store, folder, Rules(delete=True))


def test_a_killed_gc_leaves_nothing_that_looks_built(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    plan = planned(store, "rows")
    for calls in range(40):
        receipt = run(store, plan, Toy())
        process = FORK.Process(target=_interrupted, args=(store, tmp_path, calls))
        process.start()
        process.join(20)
        if store.file("rows", plan.address, ".json").exists():  # the receipt goes first
            verify(store.folder("rows", receipt.key))
        planned(store, "rows")
        if process.exitcode == 0:
            break
    assert calls > 5 and not products(store)
    clean(store, tmp_path, Rules(delete=True))
    assert not list(store.root.glob("rows/*dead*"))


def test_remains_and_pieces(place: Folder) -> None:
    store, old = place.store, time.time() - 40 * DAY
    [key, *_] = [name.split("/")[1] for name in products(store) if name.startswith("rows/")]
    remains = [store.root / f"rows/{key}.broken-1", store.root / f"rows/{'0' * 32}.tmp", store.work("1" * 32)]
    loose, linked = store.pieces / "tokens/a/loose", store.pieces / "tokens/a/linked"
    stale, fresh = store.pieces / "predictions/stale", store.pieces / "predictions/fresh"
    lost, known = store.pieces / f"rows/a/{'2' * 32}.origins", store.pieces / f"rows/a/{key}.origins"
    for path in (*remains, loose.parent, stale, fresh, lost.parent):
        path.mkdir(parents=True)
    for path in (loose, linked, stale / "rows", fresh / "rows", lost, known):
        path.write_text("x" * 5000)
    os.link(linked, store.root / "rows" / key / "linked")
    for path in (loose, linked, stale / "rows", stale, fresh, lost, known):
        os.utime(path, (old, old))
    printed = collected(place)
    assert not [path for path in (*remains, loose, stale, lost) if path.exists()]
    assert linked.exists() and (fresh / "rows").exists() and known.exists()
    assert printed.endswith("deleted 15.0 kB that nobody needs")


def test_a_job_that_works_on_a_needed_key_keeps_its_half_folder(place: Folder) -> None:
    from workflow.store.locks import held

    half = place.store.root / f"rows/{'0' * 32}.tmp"
    half.mkdir()
    with held(place.store.lock("rows", "0" * 32), "x"):
        collected(place)
        assert half.exists()
    collected(place)
    assert not half.exists()


def test_drawing_again_renews_the_plans(place: Folder) -> None:
    """A reverted edit after `gc`: planned and built anew, as if never seen."""
    node = place.graph("small").node("voted")
    for path in place.path("recipes").glob("*.yaml"):
        path.rename(path.with_suffix(".away"))
    collected(place)
    assert not products(place.store)
    for path in place.path("recipes").glob("*.away"):
        path.rename(path.with_suffix(".yaml"))
    settle(place.store, node)
    assert place.store.plan("voted", node.address)


def test_ages() -> None:
    assert [seconds(age) for age in ("2w", "7d", "3h", "5m")] == [14 * DAY, 7 * DAY, 10800, 300]
    for wrong in ("7", "d", "-1d", "1y", ""):
        with pytest.raises(ValueError):
            seconds(wrong)
