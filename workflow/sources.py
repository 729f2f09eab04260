"""Digests of source files, read once: cached by size, mtime and inode as git's index does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from workflow.errors import BuildError
from workflow.store.address import sha256_of

RACY_NS = 2_000_000_000
"""A file changed this recently (ns) may change again within one clock tick: not cached (git's racy rule)."""

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, "
    "ctime_ns INTEGER, inode INTEGER, sha256 TEXT)"
)


def source_digest(path: Path, cache: Path) -> str:
    """SHA-256 of a source file in hex, from `cache` (an SQLite file) if the file did not change.

    Raises:
        BuildError: There is no such file.
    """
    if not path.is_file():
        raise BuildError(f"{path}: no such file; put it there or correct the recipe")
    path = path.absolute()
    stat = path.stat()
    identity = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    with _opened(cache) as database:
        row = database and database.execute(
            "SELECT size, mtime_ns, ctime_ns, inode, sha256 FROM digests WHERE path = ?", (str(path),)
        ).fetchone()
        if row and row[:4] == identity:
            return str(row[4])
        digest = sha256_of(path)
        quiet = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > RACY_NS
        if database and quiet and path.stat().st_mtime_ns == stat.st_mtime_ns:
            database.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?, ?)", (str(path), *identity, digest)
            )
    return digest


@contextmanager
def _opened(cache: Path) -> Iterator[sqlite3.Connection | None]:
    """The cache, or None where it cannot be used (read-only, locked): then files are read again."""
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(cache, timeout=5, isolation_level=None)
        connection.execute(_SCHEMA)
    except (OSError, sqlite3.Error):
        yield None
        return
    with closing(connection):
        yield connection
