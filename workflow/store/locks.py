"""One maker per key. The kernel drops a dead holder's lock, so there is never one to clean up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from workflow.disk import one_line
from workflow.progress import say


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock (flock) on `path` for the block; say so when another process has it."""
    lock = FileLock(path)
    try:
        with one_line(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        say(f"{what}: another build is making it, waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Hold the lock on `path` for the block if nobody has it, without waiting; whether it is held."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
