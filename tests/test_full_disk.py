"""A full or broken disk at every single write: one line that says so, and the next build goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from accidents import PRODUCTS, PUBLISHED, Case, Strike, every
from injection import FLUSHES, WRITES, Point, needs_strace
from workspace import Folder
from zygote import Zygote

GROWING = ("mkdir", "mkdirat", "symlink", "symlinkat")
ANOTHER_WAY = ("sendfile", "copy_file_range")
"""Calls that Python does without when they fail: it then copies with read and write."""
CACHE = ("fdatasync",)
"""Only SQLite calls it, for the cache of digests, which builds do without."""


def judged(strike: Strike) -> list[str]:
    """What is wrong with how a command said that it could not write."""
    wrong = [] if strike.status > 0 else [f"ended with {strike.status}"]
    said = [line for line in strike.printed.splitlines() if line.startswith("Error: ")]
    if "Traceback" in strike.printed or len(said) != 1:
        wrong += [f"said {strike.printed!r}"]
    elif not re.search(r"(store|results|recipes)/\S+: .*; .*", said[0]):
        wrong += [f"names no path or no remedy: {said[0]}"]
    return wrong


def fallen_back(strike: Strike) -> list[str]:
    return judged(strike) if strike.status else []


def struck(case: Case) -> list[str]:
    """What went wrong with ENOSPC at any write and any new name, with EIO at any write and any flush."""
    points, expected = case.undisturbed()

    def strike(point: Point) -> str:
        needless = point.name in (*ANOTHER_WAY, *CACHE) or "digests.sqlite" in point.file
        judge = fallen_back if needless else judged
        full = case.struck(point, "error=ENOSPC", expected, judge) if point.name not in FLUSHES else ""
        broken = case.struck(point, "error=EIO", expected, judge) if point.name not in GROWING else ""
        return full + broken

    chosen = [point for point in points if point.name in (*WRITES, *FLUSHES, *GROWING)]
    assert len(chosen) >= 3
    return every(chosen, strike)


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize(
    ("case", "name"),
    [*((Case.of_product, name) for name in PRODUCTS), *((Case.of_publishing, name) for name in PUBLISHED)],
    ids=[*PRODUCTS, *(f"publishing {name}" for name in PUBLISHED)],
)
def test_a_full_disk_at_any_write(
    case: Callable[..., Case], name: str, made: Folder, zygote: Zygote, tmp_path: Path
) -> None:
    wrong = struck(case(zygote, made, name, tmp_path / "it"))
    assert not wrong, "\n".join(wrong)
