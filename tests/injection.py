"""Accidents at an exact system call: strace stops a process, counts, and strikes at the k-th one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from zygote import Run

WRITES = ("write", "pwrite64", "writev", "sendfile", "copy_file_range", "ftruncate", "fallocate")
FLUSHES = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")
NAMES = (
    *("link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"),
    *("chmod", "fchmod", "fchmodat", "utimensat"),
)
CHANGES = (*WRITES, *FLUSHES, *RENAMES, *NAMES)
"""The calls by which a process changes what is on disk; opening for writing shows at the next of them."""

_CALL = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<arguments>.*)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of `name` by one thread of the process, counted from 1, and what it was about."""

    name: str
    number: int
    arguments: str

    @property
    def file(self) -> str:
        """The path of the first descriptor in the arguments."""
        match = re.match(r"\d+<([^>]*)>", self.arguments)
        return match[1] if match else ""

    def __str__(self) -> str:
        return f"{self.name} {self.number} ({self.arguments[:160]})"


@cache
def why_not() -> str:
    """Why strace cannot be used here; empty if it can."""
    if not shutil.which("strace"):
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace cannot trace here: {tried.stderr.strip()}" if tried.returncode else ""


needs_strace = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


def _attached(run: Run, *options: str) -> subprocess.Popen[bytes]:
    """strace on a process that is stopped before its first step; it goes on now."""
    _until(run.pid, "State", "T")
    known = ",".join(f"?{name}" for name in CHANGES)
    command = [
        "strace",
        "-f",
        "-qq",
        "-p",
        str(run.pid),
        "-e",
        f"trace={known}",
        "-e",
        "signal=none",
        *options,
    ]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(run.pid, "TracerPid", str(tracer.pid))
    os.kill(run.pid, signal.SIGCONT)
    return tracer


def _until(process: int, field: str, value: str) -> None:
    for _ in range(20_000):
        status = Path(f"/proc/{process}/status").read_text()
        if re.search(rf"^{field}:\t{value}", status, re.M):
            return
        time.sleep(0.0005)
    raise AssertionError(f"process {process} never had {field} {value}")


def recorded(run: Run, log: Path, below: Path) -> list[Point]:
    """Let the process go on to its end: its calls that changed something below a folder, in order.

    Files are known by their place; what has no full path (names given to rename, unlink, mkdir) is taken to
    be below, since processes run there. Other threads than the first only read, but for the cache of digests.
    """
    tracer = _attached(run, "-y", "-s", "0", "-o", str(log))
    assert run.wait() == 0
    tracer.wait()
    points = list(_points(log, run.pid))
    ours = (f"<{below}/", f"<{below}>")
    return [p for p in points if "</" not in p.arguments or any(name in p.arguments for name in ours)]


def _points(log: Path, thread: int) -> Iterator[Point]:
    counts: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        call = _CALL.match(line)
        if call and int(call["thread"]) == thread:
            counts[call["name"]] += 1
            if " = -1 " not in line:
                yield Point(call["name"], counts[call["name"]], call["arguments"])


def struck(run: Run, point: Point, how: str) -> int:
    """Let the process go on until `how` (`signal=KILL`, `error=EIO`) strikes at `point`: its exit status."""
    tracer = _attached(run, "-o", "/dev/null", "-e", f"inject={point.name}:{how}:when={point.number}")
    status = run.wait()
    tracer.wait()
    return status


def unflushed(points: list[Point], root: Path) -> list[str]:
    """Where a power cut could show an unwritten file under a final name, or lose a name for good.

    What is renamed out of a folder that ends in `.tmp`, or from beside its place, must have been flushed;
    the folder in which a name appears must be flushed afterwards. Leases count for nothing after a power cut,
    and the name of a piece that is lost costs only time.
    """
    points = [point for point in points if "/leases/" not in point.arguments]
    dirty: set[str] = set()
    unsynced: set[str] = set()
    found = []
    for point in points:
        paths = [os.path.join(root, name) for name in re.findall(r'"([^"]+)"', point.arguments)]
        if point.name in WRITES:
            dirty.add(point.file)
        elif point.name in FLUSHES:
            dirty.discard(point.file)
            unsynced.discard(point.file)
        elif point.name in RENAMES:
            old, new = paths
            moved = {path for path in dirty if path == old or path.startswith(old + "/")}
            if ".tmp/" in os.path.relpath(new, root):
                dirty = dirty - moved | {path.replace(old, new, 1) for path in moved}
                continue
            found += [f"{path} was not flushed before its rename" for path in sorted(moved)]
            if "/pieces/" not in new:
                unsynced.add(os.path.dirname(new))
    return found + [f"{path} was not flushed after a rename in it" for path in sorted(unsynced)]
