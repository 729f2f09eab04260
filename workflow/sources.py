"""Digests of source files, read once: cached by size, mtime and inode as git's index does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from workflow.errors import BuildError
from workflow.store.address import sha256_of

RACY_NS = 2_000_000_000
"""A file changed this recently (ns) may change again within one clock tick: not cached (git's racy rule)."""

Identity = tuple[int, int, int, int]
"""Size, mtime, ctime (ns) and inode of a file."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
    "ctime_ns INTEGER, inode INTEGER, sha256 TEXT)"
)


DATA = "data/"
"""Before the path inside the folder: the role of a file of a data set."""


def folder_files(folder: Path) -> dict[str, Path]:
    """Role -> file of a data set that is a folder; hidden files and folders are none of it.

    Raises:
        BuildError: No folder, or no file in it.
    """
    if not folder.is_dir():
        raise BuildError(f"{folder}: no such folder; for a data set of the hub add its revision")
    inner = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = {
        f"{DATA}{path.as_posix()}": folder / path
        for path in inner
        if not any(part.startswith(".") for part in path.parts)
    }
    if not files:
        raise BuildError(f"{folder}: there is no file in it")
    return files


def source_digest(path: Path, cache: Path) -> str:
    """SHA-256 of a source file in hex, from `cache` (an SQLite file) if the file did not change.

    Raises:
        BuildError: There is no such file, or it cannot be read.
    """
    if not path.is_file():
        raise BuildError(f"{path}: no such file; put it there or correct the recipe")
    try:
        return file_digest(path, cache)
    except OSError as error:
        raise BuildError(f"{path}: cannot be read ({error.strerror})") from None


def file_digest(path: Path, cache: Path, trust: bool = True) -> str:
    """The same for any file; raises OSError if it cannot be read.

    Args:
        path: The file.
        cache: An SQLite file.
        trust: Whether the cache may answer; if not, every byte is read and the cache told.
    """
    path = path.absolute()
    identity = _identity(path)
    with _opened(cache) as database:
        known = _known(database, path, identity)
        if known and trust:
            return known
        quiet = time.time_ns() - max(identity[1:3]) > RACY_NS
        digest = sha256_of(path)
        if quiet and digest != known and _identity(path) == identity:
            _remember(database, path, identity, digest)
    return digest


def _identity(path: Path) -> Identity:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _known(database: sqlite3.Connection | None, path: Path, identity: Identity) -> str | None:
    if database is None:
        return None
    with suppress(sqlite3.Error):
        row = database.execute(
            "SELECT size, mtime_ns, ctime_ns, inode, sha256 FROM digests WHERE path = ?", (str(path),)
        ).fetchone()
        return str(row[4]) if row and row[:4] == identity else None
    return None


def _remember(database: sqlite3.Connection | None, path: Path, identity: Identity, digest: str) -> None:
    if database is None:
        return
    with suppress(sqlite3.Error):  # read-only or locked: the file is read again next time
        database.execute(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", (str(path), *identity, digest)
        )


@contextmanager
def _opened(cache: Path) -> Iterator[sqlite3.Connection | None]:
    """The cache, or None where it cannot be used (read-only, locked): then files are read again."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(cache, timeout=5, isolation_level=None)
    except (OSError, sqlite3.Error):
        yield None
        return
    with closing(connection):
        with suppress(sqlite3.Error):
            connection.execute(_SCHEMA)
        yield connection
