"""What running builds use: a lease names products and is locked for as long as its holder lives.

The kernel drops the lock with the holder, so that a killed build leaves no lease behind, only a file that
counts for nothing. A lease is made under the guard that `tunemake gc` holds alone: it comes wholly before a
deletion, which then spares its products, or wholly after, and the build sees what is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow.disk import one_line
from workflow.store.address import canonical
from workflow.store.store import Store

Ref = tuple[str, str]
"""Product and address."""

_kept: list[Lease] = []


class Lease:
    """A locked file that names products; gone when it is dropped or its holder dies."""

    def __init__(self, store: Store, refs: Iterable[Ref]):
        """Write and lock it; see `leased`."""
        store.open()
        self.path = folder(store) / f"{secrets.token_hex(8)}.json"
        with guard(store):
            self._write(self.path.with_suffix(".tmp"), canonical(sorted(set(refs))))

    def _write(self, temporary: Path, body: bytes) -> None:
        with one_line(self.path):
            self.file = temporary.open("xb")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX)
            with one_line(self.path):
                self.file.write(body)
                self.file.flush()
                temporary.rename(self.path)
        except BaseException:
            temporary.unlink()
            raise

    def drop(self) -> None:
        """Give it back."""
        self.path.unlink(missing_ok=True)
        self.file.close()


def folder(store: Store) -> Path:
    """Where leases lie."""
    return store.root / "leases"


@contextmanager
def guard(store: Store, alone: bool = False) -> Iterator[None]:
    """Hold the store's guard, shared or alone (flock); for moments only."""
    path = folder(store) / "guard.lock"
    with one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def leased(store: Store, refs: Iterable[Ref]) -> Iterator[None]:
    """Keep `gc` from these products, and from all that they are made from, for the block."""
    lease = Lease(store, refs)
    try:
        yield
    finally:
        lease.drop()


def keep(store: Store, refs: Iterable[Ref]) -> None:
    """The same until this process ends; nothing in a store that may only be read."""
    if os.access(store.root, os.W_OK) or not store.root.exists():
        _kept.append(Lease(store, refs))


def held_refs(store: Store) -> set[Ref]:
    """Products that living leases name; files of dead holders are deleted. Call it under the guard, alone."""
    found: set[Ref] = set()
    for path in folder(store).glob("*.json"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found |= {(str(product), str(address)) for product, address in json.loads(file.read())}
                continue
            path.unlink(missing_ok=True)
    return found
