"""Pieces: parts of products that later products use again, shared by hard links.

A piece lies at `<store>/pieces/<kind>/<context>/<label>-<sha256><ending>`; the context stands for all that
decides the bytes besides what the label names. It appears whole, is read-only and never changes; equal
pieces of two writers have one name. A product holds hard links to its pieces, so a piece with a single
link belongs to no product: garbage, whenever it is found.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from workflow.store.address import sha256_of
from workflow.store.files import READ_ONLY

_NAME = re.compile(r"([a-z0-9-]+)-([0-9a-f]{64})")


class Pieces:
    """The pieces of one context."""

    def __init__(self, folder: Path, ending: str):
        """List what is there; pieces that others add later are not seen, which costs only time."""
        self.folder, self.ending = folder, ending
        self.found: dict[str, list[tuple[Path, str]]] = {}
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            if name.endswith(ending) and (match := _NAME.fullmatch(name.removesuffix(ending))):
                self.found.setdefault(match[1], []).append((folder / name, match[2]))

    def take(self, label: str, target: Path) -> bool:
        """Make `target` a link to the piece with this label, if there is one with its bytes intact.

        Linked first and read then: what has two links is nobody's garbage. A damaged piece is removed.
        """
        for path, digest in self.found.get(label, []):
            try:
                _link(path, target)
            except FileNotFoundError:  # swept a moment ago
                continue
            if sha256_of(target) == digest:
                return True
            target.unlink()
            path.unlink(missing_ok=True)
        return False

    def intact(self, label: str) -> Path | None:
        """The piece with this label, to be read only."""
        for path, digest in self.found.get(label, []):
            try:
                if sha256_of(path) == digest:
                    return path
            except FileNotFoundError:
                continue
        return None

    def put(self, label: str, data: bytes, target: Path) -> None:
        """Write `target` and make it a piece, which from its first moment has two links."""
        with target.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        target.chmod(READ_ONLY)
        path = self.folder / f"{label}-{hashlib.sha256(data).hexdigest()}{self.ending}"
        temporary = target.with_name(f".{target.name}.piece")
        _link(target, temporary)
        for _ in range(2):
            try:
                temporary.replace(path)
                break
            except FileNotFoundError:  # no such folder yet, or it was swept
                path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a rename of one link to another leaves both


def _link(path: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none (or no more of them)."""
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(path, target)
        target.chmod(READ_ONLY)
