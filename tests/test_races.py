"""Builds at once: every product is made exactly once, all succeed, the bytes are those of one build alone."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from accidents import build, made_of, start
from wholeness import different, snapshot, soaking, torn
from workspace import Folder, folder
from zygote import Zygote

from workflow.settle import settle

RACES, TOPS = 100, ("rows_train", "overlap", "shards_train", "shards_test")
SHOWN = ("voted.jsonl", "scores.json", "adapter", "overlap.json")
EDIT = ("small.yaml", "ties: first", "ties: abstain")


def race(zygote: Zygote, planned: Folder, root: Path, seed: int) -> None:
    """2 to 8 processes build the same or overlapping products from nothing at the same moment."""
    chance = random.Random(seed)
    shutil.copytree(planned.root, root)
    place, gate, log = Folder(root), root.with_name("gate"), root.with_name("made.log")
    printed = root.with_name("printed.txt")
    racers, wanted = [], set()
    top = chance.choice(TOPS)
    for _ in range(chance.randint(2, 8)):
        top = chance.choice((top, chance.choice(TOPS)))
        nodes = [f"{node.product}/{node.address}" for node in planned.graph("small").node(top).closure()]
        wanted.update(nodes)
        env = {"MADE_LOG": str(log)}
        racers.append(zygote.start("racer", str(gate), *nodes, cwd=root, output=printed, env=env))
    gate.touch()
    assert [racer.wait() for racer in racers] == [0] * len(racers), printed.read_text()
    made = Counter(log.read_text().splitlines())
    assert len(made) == len(wanted) and set(made.values()) == {1}, f"seed {seed}: {made}"
    assert torn(root) == []
    for product, _, address in (name.partition("/") for name in wanted):
        assert place.store.built(product, address)
    for path in (gate, log, printed):
        path.unlink()


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with plans and nothing made."""
    place = folder(tmp_path_factory.mktemp("planned") / "it")
    for top in TOPS:
        settle(place.store, place.graph("small").node(top))
    return place


@pytest.mark.slow
def test_a_hundred_races(planned: Folder, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    expected = snapshot(made.root)
    for seed in range(RACES):
        race(zygote, planned, tmp_path / "it", seed)
        found = snapshot(tmp_path / "it")
        assert different(found, {name: expected.get(name, b"") for name in found}) == [], f"seed {seed}"
        shutil.rmtree(tmp_path / "it")


def builds_at_once(zygote: Zygote, made: Folder, root: Path, seed: int) -> None:
    """2 to 4 builds by Snakemake with overlapping targets."""
    chance, place = random.Random(seed), folder(root)
    targets = [f"results/small/{name}" for name in SHOWN]
    asked = [chance.sample(targets, chance.randint(1, len(targets))) for _ in range(chance.randint(1, 3))]
    builds = [start(zygote, place, *some) for some in [targets, *asked]]
    said = root.with_name(f"{root.name}.txt")
    assert [run.wait() for run in builds] == [0] * len(builds), said.read_text()
    once = Counter(made_of(place))
    assert once and set(once.values()) == {1}, once
    assert build(zygote, place, *targets) == []
    found, expected = snapshot(root), snapshot(made.root)
    assert different(found, {name: expected.get(name, b"") for name in found}) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_builds_at_once(seed: int, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    builds_at_once(zygote, made, tmp_path / "it", seed)


@pytest.mark.slow
def test_an_edit_while_builds_run_harms_nothing(zygote: Zygote, tmp_path: Path) -> None:
    """What runs ends with what it began; the next build shows the edit, and makes only what it changed."""
    place, alone = folder(tmp_path / "it"), folder(tmp_path / "alone")
    targets = [f"results/small/{name}" for name in SHOWN]
    before = build(zygote, alone, *targets)
    old = alone.path("results/small/voted.jsonl").read_bytes()
    builds = [start(zygote, place, *targets) for _ in range(2)]
    while not list(place.path("store").glob("rows/*.json")):
        assert builds[0].pid
    for it in (place, alone):
        it.edit(*EDIT)
        it.edit("data/test.jsonl", "小刚", "老刚")
    statuses = [run.wait() for run in builds]
    said = place.root.with_name("it.txt").read_text()
    if statuses != [0, 0]:  # a row was edited under a job that had not read it yet: it says so, nothing else
        assert "the file changed since the build was planned" in said and "Traceback" not in said
    else:
        assert place.path("results/small/voted.jsonl").read_bytes() == old
        assert sorted(made_of(place)) == sorted(before)
    assert torn(place.root) == []
    build(zygote, place, *targets)
    build(zygote, alone, *targets)
    shown = "results/small/voted.jsonl"
    assert place.path(shown).read_bytes() == alone.path(shown).read_bytes() != old


@pytest.mark.soak
def test_races_for_long(planned: Folder, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    for seed in soaking():
        race(zygote, planned, tmp_path / "race", RACES + seed)
        shutil.rmtree(tmp_path / "race")
        if seed % 10 == 0:
            builds_at_once(zygote, made, tmp_path / str(seed), seed)
            shutil.rmtree(tmp_path / str(seed))
