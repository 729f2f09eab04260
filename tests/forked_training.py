"""Trainings that start in a moment: ranks forked from a process that has imported the libraries.

What runs is `workflow.training.program`, as under torchrun; only the launcher is replaced. The server reads
one JSON request per line: `start` forks ranks and answers with their numbers, `wait` with their statuses.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow.products import adapter
from workflow.recipe.training import Execution
from workflow.store.build import Job
from workflow.training.checkpoints import MANIFEST
from workflow.training.spec import Spec, batching

PATIENCE = 120.0
SECRET = "sk-of-a-tracker-4711"
"""In the environment of every rank, as a user's keys are."""


class Forks:
    """The server, started once per test session."""

    def __init__(self) -> None:
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore",
            "TRANSFORMERS_VERBOSITY": "warning", "OMP_WAIT_POLICY": "PASSIVE", "WANDB_API_KEY": SECRET,
            "HF_TOKEN": SECRET,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        self.process.kill()
        with self.process:  # closes its pipes
            pass

    def ask(self, **request: Any) -> list[int]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: list[int] = json.loads(self.process.stdout.readline())
        return answer

    def train(self, job: Job, kill_at: int | None = None) -> str:
        """Train to the end, or kill all ranks when the checkpoint of a step, or a later one, is sealed.

        Returns:
            What the ranks printed.
        """
        spec = spec_of(job)
        path, log = Path(spec.folder) / "spec.json", job.work / "ranks.log"
        spec.error.unlink(missing_ok=True)
        spec.progress.write_text("")
        spec.write(path)
        processes = int(Path(spec.folder).name.removeprefix("world-").partition("x")[0])
        ranks = self.ask(do="start", spec=str(path), ranks=processes, port=_free_port(), log=str(log))
        if kill_at is not None:
            _wait_until(lambda: newest(Path(spec.folder)) >= kill_at)
            for rank in ranks:
                os.kill(rank, 9)
        statuses = self.ask(do="wait")
        said = f"{log.read_text()}\n{spec.error.read_text() if spec.error.exists() else ''}"
        assert set(statuses) == ({-9} if kill_at is not None else {0}), said
        return said


def spec_of(job: Job) -> Spec:
    """The spec that the job would give its ranks."""
    execution = Execution.model_validate(job.execution)
    assert execution.processes
    size = job.slice["training"]["batch_size"]
    spread = batching(size, execution.processes, execution.micro_batch)
    folder = job.work / f"world-{spread.processes}x{spread.micro_batch}"
    folder.mkdir(parents=True, exist_ok=True)
    return replace(adapter._spec(job, execution, spread, folder))


def newest(folder: Path) -> int:
    """Step of the newest sealed checkpoint."""
    return max((int(p.parent.name.split("-")[1]) for p in folder.glob(f"checkpoint-*/{MANIFEST}")), default=0)


def _wait_until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, "nothing to kill"
        time.sleep(0.002)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serve() -> None:
    for name in (
        "torch", "transformers.trainer", "transformers.models.auto.modeling_auto", "peft", "deepspeed",
        "transformers.models.qwen2.modeling_qwen2", "transformers.integrations.deepspeed",
    ):  # fmt: skip
        __import__(name)
    ranks: list[int] = []
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            ranks = [os.fork() or _rank(number, request) for number in range(request["ranks"])]
            answer = ranks
        else:
            answer = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _rank(number: int, request: dict[str, Any]) -> int:
    """Become a rank; does not return."""
    descriptor = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(request["ranks"]),
        "LOCAL_WORLD_SIZE": str(request["ranks"]), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(request["port"]),
    }  # fmt: skip
    from workflow.training.program import main

    main(request["spec"])


if __name__ == "__main__":
    serve()
