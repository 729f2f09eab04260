"""Digests of source files: cached, and never stale."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from workflow import sources
from workflow.errors import BuildError
from workflow.sources import source_digest


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read."""
    found: list[Path] = []

    def counted(path: Path) -> str:
        found.append(path)
        return sha(path.read_bytes())

    monkeypatch.setattr(sources, "sha256_of", counted)
    return found


def test_a_quiet_file_is_read_once(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "RACY_NS", -1)
    path, cache = tmp_path / "data", tmp_path / "new/cache.sqlite"
    path.write_bytes(b"one")
    assert [source_digest(path, cache) for _ in range(3)] == [sha(b"one")] * 3
    assert len(reads) == 1
    os.utime(path, ns=(1, 1))  # touch: read again, the same digest
    assert source_digest(path, cache) == sha(b"one")
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size and mtime: ctime tells
    assert source_digest(path, cache) == sha(b"two")
    assert len(reads) == 3


def test_a_fresh_file_is_not_trusted(tmp_path: Path, reads: list[Path]) -> None:
    path, cache = tmp_path / "data", tmp_path / "cache.sqlite"
    for body in (b"one", b"two", b"six"):
        path.write_bytes(body)
        os.utime(path, ns=(10**18, 10**18))
        assert source_digest(path, cache) == sha(body)
    source_digest(path, cache)
    assert len(reads) == 4


@pytest.mark.parametrize("kind", ["no folder", "garbage", "read-only", "folder", "other table"])
def test_a_cache_that_cannot_be_used(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "RACY_NS", -1)
    path, cache = tmp_path / "data", tmp_path / "cache.sqlite"
    path.write_bytes(b"one")
    if kind == "no folder":
        (tmp_path / "file").write_text("")
        cache = tmp_path / "file/cache.sqlite"
    elif kind == "garbage":
        cache.write_bytes(b"garbage" * 1000)
    elif kind == "folder":
        cache.mkdir()
    elif kind == "other table":
        with sqlite3.connect(cache) as database:
            database.execute("CREATE TABLE digests (x)")
        database.close()
    else:
        source_digest(path, cache)
        real = sqlite3.connect  # root may write anything, so SQLite itself is told
        monkeypatch.setattr(sqlite3, "connect", lambda p, **kw: real(f"file:{p}?mode=ro", uri=True, **kw))
        path.write_bytes(b"changed")
    for _ in range(2):
        assert source_digest(path, cache) == sha(path.read_bytes())


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BuildError, match="no such file; put it there or correct the recipe"):
            source_digest(path, tmp_path / "cache.sqlite")
