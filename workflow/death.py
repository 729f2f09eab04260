"""No process outlives the build that started it (Linux: prctl(2), PR_SET_PDEATHSIG).

The kernel tells only direct children of a death. What those started (compilers, helper processes of
libraries) is ended by a guard: a process beside each job that waits for the job's end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1

MARK = "TUNEMAKE_JOB"
"""Environment variable that a job shares with all that it starts, set by the Snakefile."""


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies; go at once if it has died already.

    Call it first thing in a process, or as `preexec_fn` of a child.
    """
    parent = os.getppid()
    _at_parents_death(signal.SIGKILL)
    if os.getppid() != parent or _adopts(parent):
        os._exit(1)


def _at_parents_death(number: signal.Signals) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def _adopts(process: int) -> bool:
    """Whether orphans go to it: systemd, or process 1 unless that is itself a build in a container."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return name == "systemd" or (process == 1 and b"python" not in command)


def leave_nothing_behind() -> None:
    """Start the guard of this process: however it ends, soon after nothing that it started is alive.

    Call it before there are threads.
    """
    job = os.getpid()
    mark = f"{MARK}={os.environ.setdefault(MARK, str(job))}".encode()
    if os.fork():
        return
    try:
        _guard(job, mark)
    finally:
        os._exit(0)


def _guard(job: int, mark: bytes) -> None:
    """Wait for the end of `job`, out of reach of a Ctrl-C and holding none of its files; then end its kin."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nothing, standard)
    os.closerange(3, 1 << 16)
    _at_parents_death(signal.SIGUSR1)
    if os.getppid() == job:
        signal.sigwait({signal.SIGUSR1})
    for _ in range(200):  # what is killed may have started another a moment before
        kin = _marked(mark)
        if not kin:
            return
        for process in kin:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _marked(mark: bytes) -> list[int]:
    """Other processes that have the mark in their environment; zombies have none."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (path / "environ").read_bytes().split(b"\0") and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found
