"""Deaths: whatever a job started goes with it, also what knows nothing of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from killing import Family

GRANDCHILD = "subprocess.Popen(['sleep', '100'])"
FORK = "os.fork() or time.sleep(100)"


def family(tmp_path: Path, started: str, guarded: bool = True, end: str = "time.sleep(100)") -> Family:
    """A build, whose shell becomes a job, which starts something that nobody asked to die."""
    job = f"""
        import os, subprocess, time
        from workflow.death import die_with_parent, leave_nothing_behind
        die_with_parent()
        {guarded} and leave_nothing_behind()
        {started}
        open('ready', 'w').close()
        {end}
    """
    (tmp_path / "job.py").write_text(textwrap.dedent(job))
    shell = f"export TUNEMAKE_JOB=$$; exec {sys.executable} job.py"
    build = f"import subprocess; subprocess.run([{shell!r}], shell=True)"
    return Family([sys.executable, "-c", build], tmp_path)


@pytest.mark.parametrize("started", [GRANDCHILD, FORK], ids=["exec", "fork"])
def test_what_a_job_started_dies_with_the_build(tmp_path: Path, started: str) -> None:
    build = family(tmp_path, started)
    assert build.wait_until((tmp_path / "ready").exists)
    assert len(build.kill()) == 4  # build, job, guard, and what it started


@pytest.mark.slow
def test_without_the_guard_it_would_live_on(tmp_path: Path) -> None:
    build = family(tmp_path, GRANDCHILD, guarded=False)
    assert build.wait_until((tmp_path / "ready").exists)
    with pytest.raises(AssertionError, match="sleep 100"):
        build.kill()
    build.clear()


@pytest.mark.parametrize("end", ["pass", "os.abort()"])
def test_nor_does_it_outlive_a_job_that_ends(tmp_path: Path, end: str) -> None:
    build = family(tmp_path, GRANDCHILD, end=end)
    build.first.wait()
    until = time.monotonic() + 2
    while build.alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert not build.alive()


@pytest.mark.parametrize("name", ["systemd", "other"])
def test_an_orphan_in_the_arms_of_systemd_goes_at_once(tmp_path: Path, name: str) -> None:
    """A reaper adopts a job whose build died before the job could say a word."""
    code = f"""
        import ctypes, os, sys, time
        libc = ctypes.CDLL(None)
        libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
        libc.prctl(15, b{name!r})  # PR_SET_NAME
        reaper = os.getpid()
        if not os.fork():
            if not os.fork():
                while os.getppid() != reaper: time.sleep(0.01)
                from workflow.death import die_with_parent
                die_with_parent()
                open('lives', 'w').close()
            os._exit(0)
        for _ in range(2):
            os.wait()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True)
    assert (tmp_path / "lives").exists() == (name == "other")
