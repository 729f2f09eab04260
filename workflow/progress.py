"""What a person sees while a job works: a line now and then, with an estimate of what is left."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

EVERY = 5.0
"""Seconds between two progress lines of one job."""

_console: TextIO | None = None
"""The terminal, where a log has taken its place."""


def redirect(log: Path | None) -> None:
    """Send everything that libraries print to `log`; `say` goes on to reach the terminal.

    Without a log both go to the terminal.
    """
    global _console
    if log is None:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    _console = os.fdopen(os.dup(2), "w", buffering=1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def say(line: str) -> None:
    """One line for the person at the terminal, and for the log."""
    print(line, file=_console or sys.stderr, flush=True)
    if _console:
        with suppress(OSError):  # a full disk is said at the terminal; nothing may stay in a buffer
            os.write(2, f"{line}\n".encode(errors="replace"))


class Progress:
    """Counts work done and prints a line every few seconds."""

    def __init__(self, label: str, total: int, unit: str):
        """Start the clock for `total` units of work, called `unit` (steps, rows, MB)."""
        self.label, self.total, self.unit = label, total, unit
        self.began = self.shown = time.monotonic()
        self.before: int | None = None
        self.finished = False

    def reached(self, done: int, note: str = "") -> None:
        """Say that `done` units are finished, work found already done included."""
        now = time.monotonic()
        if self.before is None:
            self.before, self.began = done, now
        finished, self.finished = self.finished, done >= self.total
        if finished or (now - self.shown < EVERY and done < self.total):
            return
        self.shown = now
        left = self._left(done, now)
        say(f"{self.label}: {done}/{self.total} {self.unit}{note and ', ' + note}{left}")

    def _left(self, done: int, now: float) -> str:
        new = done - (self.before or 0)
        if new <= 0 or done >= self.total:
            return ""
        return f", about {duration((now - self.began) / new * (self.total - done))} left"


def duration(seconds: float) -> str:
    """A time for people: `42 s`, `3 min 05 s`, `1 h 52 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: Any) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    if not isinstance(count, int | float):
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
