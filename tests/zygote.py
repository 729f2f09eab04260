"""Processes that start in milliseconds: forked from one that has imported everything.

`Zygote` is a server on a Unix socket. Whoever connects sends a command line and its own standard streams
and gets a fresh process that runs it; when the connection closes, that process is killed. The file
`bin/tunemake` beside the socket is such a client: with it first in PATH, real Snakemake runs real jobs
without paying for their imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
env = dict(os.environ)
del env["TUNEMAKE_JOB"]  # the job's guard must not take us for something that it started
request = {{"program": "tunemake", "arguments": sys.argv[1:], "cwd": os.getcwd(), "env": env}}
socket.send_fds(connection, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
answer = connection.makefile()
answer.readline()
status = int(answer.readline() or 70)
sys.exit(status if status >= 0 else 128 - status)
"""
PR_SET_PDEATHSIG, PR_SET_PTRACER, ANYBODY = 1, 0x59616D61, -1


class Run:
    """A process that the zygote started for us."""

    def __init__(self, connection: socket.socket):
        self.connection, self.answer = connection, connection.makefile()
        self.pid = int(self.answer.readline())

    def wait(self) -> int:
        """Its exit status, or the negative number of the signal that ended it."""
        with self.connection, self.answer:
            return int(self.answer.readline())

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Zygote:
    """The server, started once per test session; stopped with it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="zygote-"))
        self.folder.chmod(0o755)  # other users' jobs come here too
        self.address = str(self.folder / "socket")
        (self.folder / "bin").mkdir()
        client = self.folder / "bin/tunemake"
        client.write_text(CLIENT.format(python=sys.executable, address=self.address))
        client.chmod(0o755)
        command = [sys.executable, __file__, self.address]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=_environment())
        while not Path(self.address).exists():
            assert self.process.poll() is None, "the zygote did not start"
            time.sleep(0.02)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)

    def start(
        self, program: str, *arguments: str, cwd: Path, output: Path, stopped: bool = False, **more: Any
    ) -> Run:
        """Start a program of `standins.PROGRAMS`; `stopped` ones wait for SIGCONT before they begin."""
        env = {**_environment(), "PWD": str(cwd), **more.pop("env", {})}
        request = {"program": program, "arguments": arguments, "cwd": str(cwd), "env": env, **more}
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        with output.open("ab") as file:
            line = json.dumps({"stopped": stopped, **request}).encode() + b"\n"
            socket.send_fds(connection, [line], [file.fileno()] * 3)
        return Run(connection)

    def run(self, program: str, *arguments: str, cwd: Path, output: Path, **more: Any) -> int:
        """Run a program to its end: its exit status."""
        return self.start(program, *arguments, cwd=cwd, output=output, **more).wait()


def _environment() -> dict[str, str]:
    from workspace import environment

    return {**environment(), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def serve(address: str) -> None:
    """Import, listen, fork an attendant for every connection."""
    import standins

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    standins.warm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address + ".new")
    os.chmod(address + ".new", 0o666)
    listener.listen(64)
    os.rename(address + ".new", address)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Fork the process that was asked for, tell how it ends; kill it when nobody wants to know any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(json.loads(text), streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid}\n".encode())
    ended = os.pidfd_open(pid)
    ready = select.select([ended, connection], [], [])[0]
    if ended not in ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    import standins

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PTRACER, ctypes.c_ulong(ANYBODY))
    if request.get("user"):
        os.setgid(request["user"])
        os.setuid(request["user"])
    if "umask" in request:
        os.umask(request["umask"])
    if request.get("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    status = 70
    try:
        status = standins.PROGRAMS[request["program"]](request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    serve(sys.argv[1])
