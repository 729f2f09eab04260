"""Locale, time zone, umask, hash seed, place, threads, user: the same addresses and the same bytes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accidents import build
from wholeness import different, snapshot
from workspace import ROOT, Folder, environment, folder
from zygote import Zygote

NOBODY = 65534
SURROUNDINGS: dict[str, dict[str, Any]] = {
    "locale": {"env": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}},
    "time zone": {"env": {"TZ": "Pacific/Kiritimati"}},
    "umask": {"umask": 0o077},
    "open umask": {"umask": 0o000},
    "threads": {"env": {"OMP_NUM_THREADS": "7", "TOKENIZERS_PARALLELISM": "true"}},
    "columns": {"env": {"COLUMNS": "20", "TERM": "dumb", "NO_COLOR": "1"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_surrounding_changes_no_byte(name: str, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    place = folder(tmp_path / "it")
    printed = tmp_path / "printed.txt"
    assert zygote.run("remake", "small", cwd=place.root, output=printed, **SURROUNDINGS[name]) == 0
    assert unlike(place, made) == []


def unlike(place: Folder, made: Folder) -> list[str]:
    """What of the products differs from those made in usual surroundings."""
    found = {name: body for name, body in snapshot(place.root).items() if name.startswith("store/")}
    expected = snapshot(made.root)
    assert len(found) > 60
    return different(found, {name: expected.get(name, b"") for name in found})


@pytest.mark.slow
def test_a_place_with_spaces_and_chinese_characters(made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    """The whole build by Snakemake, shell commands included."""
    place = folder(tmp_path / "my models/模型 $HOME 'x'")
    build(zygote, place)
    assert different(snapshot(place.root), snapshot(made.root)) == []


@pytest.fixture
def anybodys(tmp_path: Path) -> Iterator[Folder]:
    """A folder that belongs to somebody else than root."""
    root = Path("/tmp") / f"tunemake-{os.getpid()}"
    place = folder(root)
    for path in [root, *root.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    yield place
    shutil.rmtree(root)


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_another_user(anybodys: Folder, made: Folder, zygote: Zygote, tmp_path: Path) -> None:
    printed = tmp_path / "printed.txt"
    run = zygote.run(
        "remake", "small", cwd=anybodys.root, output=printed, user=NOBODY, env={"HOME": str(anybodys.root)}
    )
    assert run == 0, printed.read_text()
    assert unlike(anybodys, made) == []
    assert {path.stat().st_uid for path in anybodys.store.root.rglob("*") if not path.is_symlink()} == {
        NOBODY
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_the_hash_seed_changes_no_byte(seed: str, made: Folder, tmp_path: Path) -> None:
    """A Python of its own: the seed is read when it starts. Also with other threads and isolated from us."""
    place = folder(tmp_path / "it")
    program = "import sys, standins; sys.exit(standins.remake(['small']))"
    env = {**environment(), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    subprocess.run([sys.executable, "-c", program], cwd=place.root, check=True, capture_output=True, env=env)
    assert unlike(place, made) == []


@pytest.mark.slow
def test_published_files_are_for_readers(made: Folder) -> None:
    """Products are read-only; nothing in the store may be executed or is hidden from its group."""
    for path in made.store.root.rglob("*"):
        mode = path.lstat().st_mode
        if (
            stat.S_ISREG(mode)
            and len(path.relative_to(made.store.root).parts) > 2
            and path.parts[-2] != "leases"
        ):
            assert stat.S_IMODE(mode) == 0o444, path
