"""What running builds use: a lease names products and is locked for as long as its holder lives.

The kernel drops the lock with the holder, so that a killed build leaves no lease behind, only a file that
counts for nothing. A lease is made under the guard that `tunemake gc` holds alone: it comes wholly before a
deletion, which then spares its products, or wholly after, and the build sees what is gone.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from workflow.disk import one_line
from workflow.store.store import Store

Ref = tuple[str, str]
"""Product and address."""


class Lease:
    """A locked file that names products; gone when it is dropped or its holder dies."""

    def __init__(self, store: Store):
        """Make an empty one."""
        store.open()
        self.store, self.path = store, folder(store) / f"{secrets.token_hex(8)}.lease"
        temporary = self.path.with_suffix(".tmp")
        with guard(store), one_line(self.path):
            self.file = temporary.open("xb", buffering=0)
            fcntl.flock(self.file, fcntl.LOCK_EX)
            temporary.rename(self.path)

    def add(self, refs: Iterable[Ref]) -> None:
        """Name more products."""
        lines = "".join(f"{product} {address}\n" for product, address in refs)
        with guard(self.store), one_line(self.path):
            self.file.write(lines.encode())

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
    lease = Lease(store)
    try:
        lease.add(refs)
        yield
    finally:
        lease.drop()


def keep(store: Store, refs: Iterable[Ref]) -> None:
    """The same until this process ends; nothing in a store that may only be read."""
    if os.access(store.root, os.W_OK) or not store.root.exists():
        _kept(store).add(refs)


@cache
def _kept(store: Store) -> Lease:
    """The one lease of this process: a thousand recipes must not take a thousand open files."""
    lease, process = Lease(store), os.getpid()
    atexit.register(lambda: lease.drop() if os.getpid() == process else None)  # a fork leaves it alone
    return lease


def held_refs(store: Store) -> set[Ref]:
    """Products that living leases name; files of dead holders are deleted. Call it under the guard, alone."""
    found: set[Ref] = set()
    for path in (*folder(store).glob("*.lease"), *folder(store).glob("*.tmp")):
        with suppress(FileNotFoundError), path.open("rb") as file:  # its holder may just have ended
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lines = file.read().decode().splitlines()
                found |= {(product, address) for product, _, address in (x.partition(" ") for x in lines)}
                continue
            path.unlink(missing_ok=True)
    return found
