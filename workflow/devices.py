"""The GPUs of this machine, found without loading CUDA, and handed to one job at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from workflow.errors import BuildError
from workflow.progress import say

_DRIVER = Path("/proc/driver/nvidia/gpus")
POLL = 5.0
"""Seconds between two looks for free GPUs."""


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use: what CUDA_VISIBLE_DEVICES names, else all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in dict.fromkeys(names) if name not in ("", "-1")]
    return [str(i) for i in range(len(list(_DRIVER.iterdir())))] if _DRIVER.is_dir() else []


def gpu_name() -> str:
    """What the driver calls the first GPU, e.g. `NVIDIA H200`; `GPU` where it does not say."""
    for path in sorted(_DRIVER.glob("*/information")):
        for line in path.read_text().splitlines():
            if line.startswith("Model:"):
                return line.removeprefix("Model:").strip()
    return "GPU"


@contextmanager
def claimed(count: int) -> Iterator[None]:
    """Hold `count` GPUs that no other build of this machine uses, and make only them visible.

    Waits while others have them. The locks are the kernel's: a killed job gives its GPUs back at once.

    Raises:
        BuildError: The machine does not have so many.
    """
    if count == 0:
        yield
        return
    if count > len(visible_gpus()):
        raise BuildError(
            f"{count} GPUs are wanted but this machine has {len(visible_gpus())}: "
            "change execution.processes or CUDA_VISIBLE_DEVICES"
        )
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    with _wait_for(count):
        try:
            yield
        finally:
            if before is None:
                del os.environ["CUDA_VISIBLE_DEVICES"]
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _wait_for(count: int) -> ExitStack:
    """Locks on `count` GPUs: all of them or, so that two builds cannot block each other, none yet."""
    said = False
    while True:
        with ExitStack() as stack:
            free: list[str] = []
            for gpu in visible_gpus():
                if len(free) < count and _locked(gpu, stack):
                    free.append(gpu)
            if len(free) == count:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(free)
                return stack.pop_all()
        if not said:
            say(f"waiting for {count} GPUs: another build uses them")
            said = True
        time.sleep(POLL)


def _locked(gpu: str, stack: ExitStack) -> bool:
    name = "".join(character if character.isalnum() else "-" for character in gpu)
    lock = FileLock(Path(tempfile.gettempdir()) / f"tunemake-gpu-{name}.lock", mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    stack.callback(lock.release)
    return True
