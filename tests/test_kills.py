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
from pathlib import Path

import pytest
from accidents import PRODUCTS, PUBLISHED, Case, build, every, killed, start
from injection import needs_strace
from wholeness import different, snapshot, soaking, torn
from workspace import Folder, folder
from zygote import Zygote


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_kill_at_any_change_of_a_product(
    product: str, made: Folder, zygote: Zygote, tmp_path: Path
) -> None:
    case = Case.of_product(zygote, made, product, tmp_path / "it")
    points, expected = case.undisturbed()
    assert len(points) >= 30 and len({point.name for point in points}) >= 6
    wrong = every(points, lambda point: case.struck(point, "signal=KILL", expected, killed))
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_kill_at_any_change_of_publishing(name: str, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    case = Case.of_publishing(zygote, made, name, tmp_path / "it")
    points, expected = case.undisturbed()
    assert len(points) >= 6
    wrong = every(points, lambda point: case.struck(point, "signal=KILL", expected, killed))
    assert not wrong, "\n".join(wrong)


def lives(zygote: Zygote, place: Folder, kills: int, chance: random.Random) -> list[str]:
    """Start a build again and again and kill its whole process tree at random moments: what was torn then."""
    found = []
    for _ in range(kills):
        run = start(zygote, place)
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
