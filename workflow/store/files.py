"""Files that appear whole or not at all, and stay as they are."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workflow.disk import one_line
from workflow.errors import BuildError
from workflow.store.address import sha256_of

READ_ONLY = 0o444

Digest = Callable[[Path], str]
"""What tells the SHA-256 of a file, in hex."""


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` beside `path`, flush it to disk, then rename: readers see old or new, never a part.

    The file beside it always has the same name, so that a killed writer leaves nothing that the next one
    does not take over.

    Raises:
        BuildError: The disk is full, or refuses in another way.
    """
    with one_line(path):
        _write_atomic(path, data, mode)


def _write_atomic(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with _alone(temporary) as descriptor:
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.fchmod(descriptor, mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Open `path`, new or left by a dead writer, empty and for this writer alone (flock).

    Whoever had it renames or deletes it before letting go: then what we waited for is not `path` any more.
    """
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                if os.fstat(descriptor).st_size:
                    os.ftruncate(descriptor, 0)
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def write_if_changed(path: Path, data: bytes) -> bool:
    """Like `write_atomic`, but a file that already has these bytes keeps its mtime.

    Returns:
        Whether the file was written.
    """
    if path.is_file() and path.read_bytes() == data:
        return False
    write_atomic(path, data)
    return True


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        BuildError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file") from None
    except ValueError as error:
        raise BuildError(f"{path}: damaged ({error}); delete it and build again") from None


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_in(folder: Path) -> list[Path]:
    """All files below `folder`, links to files included, sorted by relative path."""
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def digests_of(folder: Path, digest: Digest = sha256_of) -> dict[str, dict[str, Any]]:
    """Relative path -> `{"bytes": size, "sha256": hex}` of every file below `folder`."""
    files = files_in(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(digest, files)
        return {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": found}
            for path, found in zip(files, digests, strict=True)
        }


def seal(folder: Path) -> None:
    """Flush every file of `folder` to disk and make it read-only; links are left as they are."""
    for path in files_in(folder):
        if path.is_symlink() or path.stat().st_nlink > 1:
            continue  # a link to what is sealed already, or to what is not ours
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(READ_ONLY)
    for root, _, _ in os.walk(folder):
        sync_folder(Path(root))


def remove_tree(folder: Path) -> None:
    """Delete a folder, or nothing if there is none."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
