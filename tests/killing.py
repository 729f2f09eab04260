"""Killing for tests: jobs and builds that are marked, so that whatever they started can be found."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 240.0
"""Seconds that a test waits for anything."""

GONE_WITHIN = 2.0
"""Seconds after which nothing of a killed build may be alive."""


@dataclass
class Family:
    """A process, and all that it starts: they inherit a mark in their environment."""

    command: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def __post_init__(self) -> None:
        self.mark = f"TUNEMAKE_TESTS_FAMILY={uuid.uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.log = self.folder / "family.log"
        with self.log.open("w") as log:
            self.first = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment | {name: value}, stdout=log, stderr=log
            )

    def alive(self) -> dict[int, str]:
        """Process -> command line of every member that is not a zombie."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(path.name)] = line.strip()
            except OSError:  # gone, a zombie, or not ours
                continue
        return found

    def wait_until(self, ready: Callable[[], bool]) -> bool:
        """Whether it became ready before it ended."""
        end = time.monotonic() + PATIENCE
        while not ready():
            if self.first.poll() is not None:
                return False
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.003)
        return self.first.poll() is None

    def kill(self, whole: bool = False) -> dict[int, str]:
        """SIGKILL the first process alone, or all at once; none may be alive 2 s later.

        Returns:
            Who was there.
        """
        family = self.alive()
        for process in family if whole else [self.first.pid]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.first.wait()
        end = time.monotonic() + GONE_WITHIN
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.02)
        assert not left, f"alive after {GONE_WITHIN} s: {left}"
        return family

    def clear(self) -> None:
        """Kill whoever is left."""
        for process in self.alive():
            os.kill(process, signal.SIGKILL)

    def finish(self) -> str:
        """Wait for the end, which must be a success; what was printed."""
        status = self.first.wait(PATIENCE)
        printed = self.log.read_text()
        assert status == 0, printed
        return printed


@dataclass
class Moments:
    """When to kill: a third of the times while it starts, else soon after some new progress; by a seed."""

    seed: int
    starting: float
    """Seconds from the start to the first progress; the least that was seen."""

    most: int
    """Most progress that is waited for."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def strike(self, family: Family, progress: Callable[[], int]) -> bool:
        """Kill at the next moment; whether it was still running."""
        whole = self.random.random() < 0.5
        if self.random.random() < 1 / 3:
            seconds, wanted = self.random.uniform(0, self.starting), 0
            until = time.monotonic() + seconds
            running = family.wait_until(lambda: time.monotonic() >= until)
        else:
            seconds, wanted = self.random.uniform(0, 0.1), progress() + self.random.randint(1, self.most)
            began = time.monotonic()
            running = family.wait_until(lambda: progress() >= wanted)
            self.starting = min(self.starting, time.monotonic() - began)
            time.sleep(seconds)
        print(
            f"{seconds:.3f} s after {wanted or 'the start'}, {'all' if whole else 'the job alone'}: {running}"
        )
        if running:
            family.kill(whole)
        return running
