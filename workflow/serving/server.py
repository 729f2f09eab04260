"""vLLM's server as a process of ours: started, waited for, ended with all that it started."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from workflow.death import die_with_parent
from workflow.engine import require_vllm
from workflow.errors import BuildError
from workflow.serving.program import Spec
from workflow.store.address import canonical

GRACE = 0.7
"""Seconds that a server has to end by itself, on SIGTERM."""
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY")
"""Environment variables that a server has no use for."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def refuse_used_port(host: str, port: int) -> None:
    """Raise BuildError if a server cannot listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BuildError(f"{host}:{port}: {error.strerror}; choose another --port or --host") from None


class Server:
    """A running server; used as a context manager it ends with the block, however that ends."""

    def __init__(self, spec: Spec, log: Path | None = None):
        """Start it.

        Args:
            spec: What is served; port 0 becomes a free one.
            log: File for what it prints; default: where this process prints.

        Raises:
            BuildError: vLLM is not installed, or the port is taken.
        """
        require_vllm()
        self.spec = replace(spec, port=spec.port or free_port(spec.host))
        refuse_used_port(self.spec.host, self.spec.port)
        self.log = log
        self._work = tempfile.TemporaryDirectory(prefix="tunemake-serve-")
        told = Path(self._work.name) / "spec.json"
        told.write_bytes(canonical(asdict(self.spec)))
        output = log.open("ab") if log else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workflow.serving.program", str(told)],
            env={name: value for name, value in os.environ.items() if name not in SECRETS}
            | {"TMPDIR": self._work.name, "SPT_NOENV": "1"},  # a new title must not hide the mark (death.py)
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,  # a Ctrl-C is for us; we end it
            preexec_fn=die_with_parent,
        )  # fmt: skip
        if output:
            output.close()

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.spec.host, self.spec.host)
        return f"http://{host}:{self.spec.port}"

    def ready(self) -> Server:
        """Wait until it answers.

        Raises:
            BuildError: It ended before.
        """
        while not self._answers():
            if self.process.poll() is not None:
                raise BuildError(f"vLLM's server did not start: {self._reason()}")
            time.sleep(0.1)
        return self

    def _answers(self) -> bool:
        try:
            with _direct.open(f"{self.url}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _reason(self) -> str:
        if self.log is None:
            return "see above"
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "Error" in line]
        return f"{lines[-1].strip() if lines else 'no reason given'}; see {self.log}"

    def stop(self) -> None:
        """End it and all that it started: by SIGTERM, and after a moment by SIGKILL."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._work.cleanup()

    def __enter__(self) -> Server:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback is not asked for through a proxy."""


def curl(url: str, model: str, question: str, **asked: object) -> str:
    """The shell line that asks a server one question."""
    messages = [{"role": "user", "content": question}]
    body = json.dumps({"model": model, "messages": messages, **asked}, ensure_ascii=False)
    header = shlex.quote("Content-Type: application/json")
    return f"curl -s {url}/v1/chat/completions -H {header} -d {shlex.quote(body)}"
