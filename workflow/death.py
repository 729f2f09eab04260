"""No process outlives the build that started it (Linux: prctl(2), PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies; go at once if it has died already.

    Call it first thing in a process, or as `preexec_fn` of a child.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent or (parent == 1 and not _builds(1)):
        os._exit(1)


def _builds(process: int) -> bool:
    """Whether a process is a build: in a container Snakemake itself may be process 1, and no orphanage."""
    try:
        return b"python" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
