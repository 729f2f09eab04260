"""Bounds for a stranger's code: templates may neither hang a build nor eat the machine's memory."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

SECONDS = 2.0
"""Longest time one template may take for one row."""
MEMORY = 1 << 30
"""Bytes of address space that rendering may add."""
_TICKS = 8
"""How often within SECONDS the clock is looked at."""

Result = TypeVar("Result")


class Expired(BaseException):
    """Time is up. No Exception, so that nothing in the block takes it for an error of its own and goes on."""


TIME_IS_UP = (TimeoutError, Expired)
"""What to catch around a limit: the alarm may ring while the block is being left, outside its reach."""


class _Clock:
    """When the template that runs now was started."""

    began: float | None = None

    def ring(self, signum: int, frame: object) -> None:
        if self.began is not None and time.monotonic() - self.began >= SECONDS:
            self.began = None
            raise Expired


_clock: _Clock | None = None


@contextmanager
def shared_bounds() -> Iterator[None]:
    """One alarm and one memory limit for everything that is `bounded` in the block (main thread only).

    Setting them for every row would take longer than rendering it.
    """
    global _clock
    if _clock:
        yield
        return
    clock = _Clock()
    with memory_limit(), _alarm(clock.ring, SECONDS / _TICKS, SECONDS / _TICKS):
        _clock = clock
        try:
            yield
        finally:
            _clock = None


def bounded(make: Callable[..., Result], *arguments: Any) -> Result:
    """The result of `make`, which may take SECONDS and add MEMORY.

    Raises:
        TimeoutError: It took longer.
        MemoryError: It wanted more.
    """
    if _clock is None:
        with shared_bounds():
            return bounded(make, *arguments)
    clock = _clock
    clock.began = time.monotonic()
    try:
        return make(*arguments)
    except Expired:
        raise TimeoutError from None
    finally:
        clock.began = None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds` (main thread only: it uses SIGALRM).

    Limits nest: an outer one goes on counting. Handler and timer are as before afterwards.
    """

    def expired(signum: int, frame: object) -> None:
        raise Expired

    with _alarm(expired, seconds):
        try:
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)  # one that fires just now is caught below
        except Expired:
            raise TimeoutError from None


@contextmanager
def _alarm(ring: Callable[[int, Any], None], seconds: float, every: float = 0.0) -> Iterator[None]:
    """Call `ring` after `seconds` and then every so many; afterwards handler and timer are as before."""
    began = time.monotonic()
    previous = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - time.monotonic() + began, 1e-3), interval)


@contextmanager
def memory_limit(extra: int = MEMORY) -> Iterator[None]:
    """Let the address space grow by `extra` bytes at most in the block: more is a MemoryError.

    Limits nest: an inner one is never wider than the one around it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    wanted = pages * resource.getpagesize() + extra
    bounds = [bound for bound in (wanted, soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
