"""kill -9 at every single change on disk, and at random moments of a whole build: nothing is ever torn.

After each kill everything that has a final name verifies, and the same command again ends with the bytes
of an undisturbed run and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from injection import Point, needs_strace, recorded, struck, unflushed
from wholeness import different, snapshot, soaking, take, take_product, torn
from workspace import Folder, folder
from zygote import Run, Zygote

PRODUCTS = (
    *("rows_test", "overlap", "tokenizer", "shards_train", "base model", "base adapter", "base merged"),
    *("adapter", "merged", "predictions", "voted", "scores", "report"),
)
PUBLISHED = ("voted.jsonl", "adapter")
TARGETS = [f"results/small/{name}" for name in ("report.html", "voted.jsonl", "adapter", "overlap.json")]


@pytest.fixture(scope="module")
def made(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which everything is made and published, undisturbed."""
    place = folder(tmp_path_factory.mktemp("made") / "it")
    build(zygote, place)
    return place


def build(zygote: Zygote, place: Folder) -> None:
    printed = place.path("printed.txt")
    status = zygote.run("snakemake", str(zygote.folder / "bin"), *TARGETS, cwd=place.root, output=printed)
    assert status == 0, printed.read_text()
    printed.unlink()


class Case:
    """One command and the folder it starts from."""

    def __init__(self, zygote: Zygote, before: Path, *command: str):
        self.zygote, self.before, self.command = zygote, before, command
        self.printed = before.with_name(f"{before.name}.txt")

    def start(self, root: Path, stopped: bool = True) -> Run:
        if not root.exists():
            shutil.copytree(self.before, root, symlinks=True)
        return self.zygote.start("tunemake", *self.command, cwd=root, output=self.printed, stopped=stopped)

    def undisturbed(self) -> tuple[list[Point], dict[str, bytes]]:
        """Every change that the command makes, and what is there in the end."""
        root = self.before.with_name(f"{self.before.name}-undisturbed")
        points = recorded(self.start(root), root.with_suffix(".strace"), root)
        assert unflushed(points, root) == []
        return points, snapshot(root, own=True)

    def struck(self, point: Point, how: str, expected: dict[str, bytes]) -> str:
        """What is wrong after a strike and a second run; empty if all is well."""
        root = self.before.with_name(f"{self.before.name}-{point.name}-{point.number}")
        status = struck(self.start(root), point, how)
        wrong = [] if status == -signal.SIGKILL else [f"ended with {status}"]
        wrong += torn(root)
        again = self.start(root, stopped=False).wait()
        wrong += [f"again: status {again}"] * bool(again)
        wrong += [f"{name} differs" for name in different(snapshot(root, own=True), expected)]
        shutil.rmtree(root)
        return f"{point}: {'; '.join(wrong)}" if wrong else ""


def every(points: list[Point], strike: Callable[[Point], str]) -> list[str]:
    """What went wrong at any of the points; two are tried at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [wrong for wrong in pool.map(strike, points) if wrong]


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_kill_at_any_change_of_a_product(
    product: str, made: Folder, zygote: Zygote, tmp_path: Path
) -> None:
    recipe, name = ("small-base", product[5:]) if product.startswith("base ") else ("small", product)
    node = made.graph(recipe).node(name)
    take(made, node, tmp_path / "it")
    case = Case(zygote, tmp_path / "it", node.product, "--address", node.address)
    points, expected = case.undisturbed()
    assert len(points) >= 30 and len({point.name for point in points}) >= 6
    assert every(points, lambda point: case.struck(point, "signal=KILL", expected)) == []


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_kill_at_any_change_of_publishing(name: str, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    node = made.graph("small").node(name.partition(".")[0])
    root = tmp_path / "it"
    take_product(made, node, root)
    results = root / "results/small"
    (results / ".addresses").mkdir(parents=True)
    os.symlink("elsewhere", results / name) if name == "adapter" else (results / name).write_text("old\n")
    stamp = f"store/{node.product}/{node.address}.stamp"
    case = Case(zygote, root, "publish", "--recipe", "small", "--name", name, "--stamp", stamp)
    points, expected = case.undisturbed()
    assert len(points) >= 6
    assert every(points, lambda point: case.struck(point, "signal=KILL", expected)) == []


def lives(zygote: Zygote, place: Folder, kills: int, chance: random.Random) -> list[str]:
    """Start a build again and again and kill its whole process tree at random moments: what was torn then."""
    found = []
    for _ in range(kills):
        run = zygote.start(
            "snakemake", str(zygote.folder / "bin"), *TARGETS, cwd=place.root, output=place.root / "printed.txt"
        )
        time.sleep(chance.uniform(0.1, 1.5))
        for process in [run.pid, *descendants(run.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run.wait()
        found += torn(place.root)
    return found


def descendants(process: int) -> list[int]:
    """Children of a process, and theirs."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [inner for child in children for inner in descendants(child)]


def survives(zygote: Zygote, made: Folder, root: Path, kills: int, seed: int) -> None:
    place = folder(root)
    assert lives(zygote, place, kills, random.Random(seed)) == [], f"seed {seed}"
    build(zygote, place)
    assert different(snapshot(place.root), snapshot(made.root)) == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_of_the_whole_tree_at_random(seed: int, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    survives(zygote, made, tmp_path / "it", kills=4, seed=seed)


@pytest.mark.soak
def test_kills_of_the_whole_tree_for_long(made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    for seed in soaking():
        survives(zygote, made, tmp_path / str(seed), kills=seed % 12, seed=seed)
        shutil.rmtree(tmp_path / str(seed))
