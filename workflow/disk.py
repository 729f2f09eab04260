"""What a disk refuses, in one line: the path, the reason, what is free there, the remedy.

Only refusals by disk, system or owner are explained; every other OSError is a defect and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workflow.errors import BuildError

AGAIN = "run the same command again, it goes on from here"
ELSEWHERE = "or set TUNEMAKE_STORE to a store that you may write"

FULL = (errno.ENOSPC, errno.EDQUOT)
SURE = (*FULL, errno.EIO, errno.EROFS, errno.EFBIG)
"""Never a defect of ours, even where the error names no file, as failed writes do not."""

REMEDIES = {
    errno.ENOSPC: f"free some (`tunemake gc` shows what no recipe needs) and {AGAIN}",
    errno.EDQUOT: f"free some (`tunemake gc` shows what no recipe needs) and {AGAIN}",
    errno.EIO: f"look at the disk (`dmesg`), then {AGAIN}",
    errno.EROFS: f"mount it writable, {ELSEWHERE}",
    errno.EACCES: f"get the permission, {ELSEWHERE}",
    errno.EPERM: f"get the permission, {ELSEWHERE}",
    errno.EFBIG: f"raise the limit (`ulimit -f`) and {AGAIN}",
    errno.EMFILE: f"raise the limit (`ulimit -n`) and {AGAIN}",
}
_RUST = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust (safetensors, tokenizers) name an errno."""

_TORCH = re.compile(r"PytorchStreamWriter failed writing|unexpected pos \d+ vs")
"""How `torch.save` says that a write failed; it does not say why."""


@contextmanager
def one_line(place: Path) -> Iterator[None]:
    """Turn a refusal in the block into a BuildError; `place` is named where the error names no file."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        line = refusal(error, place)
        if line is None:
            raise
        raise BuildError(line) from None


def refusal(error: Exception, place: Path) -> str | None:
    """The line for an error that is a refusal; None for any other."""
    name, number = getattr(error, "filename", None), _number(error, place)
    if number not in REMEDIES or not (name or number in SURE):
        return None
    named = isinstance(name, str) and not name.endswith(".tmp")
    path = Path(name) if isinstance(name, str) and named else place
    free = f"; {size(_free(path))} free there" if number in FULL else ""
    return f"{path}: {os.strerror(number)}{free}; {REMEDIES[number]}"


def _number(error: Exception, place: Path) -> int | None:
    """The errno of an error, or of what a library made of it."""
    if isinstance(error, OSError):
        return error.errno
    if found := _RUST.search(str(error)):
        return int(found[1])
    if _TORCH.search(str(error)):
        return errno.ENOSPC if _free(place) < 1 << 20 else errno.EIO
    return None


def size(count: int) -> str:
    """Bytes for people: `512 bytes`, `3.4 MB`, `1.2 TB` (powers of 1000)."""
    if count < 1000:
        return f"{count} bytes"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def _free(path: Path) -> int:
    """Bytes that a user may still write where `path` is or would be."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free
