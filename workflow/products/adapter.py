"""adapter: the trained weights, by transformers, PEFT and DeepSpeed.

This process holds the lock, prepares, starts the ranks (several by torchrun) and waits;
`workflow.training.program` trains. The work folder is the key's own, so an interrupted training is
continued by the same training only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow.card import write_adapter_card
from workflow.combining import combine
from workflow.death import die_with_parent
from workflow.devices import visible_gpus
from workflow.errors import BuildError
from workflow.progress import say
from workflow.recipe.training import DeepSpeed, Execution, Training
from workflow.store.build import Job
from workflow.store.files import read_json
from workflow.training.checkpoints import best_of, newest_whole
from workflow.training.spec import Batching, Spec, batching
from workflow.zero import deepspeed_config, with_users_own

POLL = 0.2
"""Seconds between two looks at the ranks."""

TRACKERS = {
    "azure_ml": ("azureml", "azureml-core"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "flyte": ("flytekit", "flytekit"),
    "kubeflow": ("kubeflow", "kubeflow"),
}
"""Tracker -> module and package, where they are not its own name."""


def make(job: Job) -> dict[str, Any]:
    """Train, or combine what was trained.

    Returns:
        Counts: steps, rows, tokens, trained tokens, parameters and how many of them are trained.

    Raises:
        BuildError: DeepSpeed is missing, the batch cannot be spread, or a rank failed.
    """
    counts = _train(job) if "training" in job.slice else combine(job)
    write_adapter_card(job)
    return counts


def _train(job: Job) -> dict[str, Any]:
    execution = Execution.model_validate(job.execution)
    _check_installed(job, execution)
    spread = batching(job.slice["training"]["batch_size"], _processes(job, execution), execution.micro_batch)
    folder = job.work / f"world-{spread.processes}x{spread.micro_batch}"
    folder.mkdir(parents=True, exist_ok=True)
    spec = _spec(job, execution, spread, folder)
    _launch(spec, spread.processes, job)
    facts: dict[str, Any] = read_json(spec.facts)
    return facts


def _processes(job: Job, execution: Execution) -> int:
    given = job.resources.gpus
    wanted = execution.processes or given or 1
    if visible_gpus() and given < wanted:
        raise BuildError(
            f"training was planned for {wanted} GPUs (execution.processes) but was given {given}; "
            f"start the build with `--resources gpu={wanted}` or change execution.processes"
        )
    return wanted


def _spec(job: Job, execution: Execution, spread: Batching, folder: Path) -> Spec:
    for other in job.work.glob("world-*"):
        if other != folder:
            say(f"adapter: checkpoints of another world size ({other.name}) are not used, it starts anew")
    validation = Training.model_validate(job.slice["training"]).validation
    resume = newest_whole(folder, best_of(validation, folder))
    if resume:
        say(f"adapter: continues from {resume.name}")
    return Spec(
        slice=job.slice,
        shards=str(job.inputs["shards"].absolute()),
        model=str(job.inputs["model"].absolute()),
        out=str(job.out.absolute()),
        folder=str(folder.absolute()),
        resume=str(resume.absolute()) if resume else None,
        micro_batch=spread.micro_batch,
        accumulation=spread.accumulation,
        gradient_checkpointing=execution.gradient_checkpointing,
        save_steps=execution.save_steps,
        save_epochs=execution.save_epochs,
        keep_checkpoints=execution.keep_checkpoints,
        deepspeed=_engine(job, execution, spread),
        report_to=list(execution.report_to),
        start=str(job.inputs["start"].absolute()) if "start" in job.inputs else None,
    )


def _engine(job: Job, execution: Execution, spread: Batching) -> dict[str, Any] | None:
    """DeepSpeed's configuration: ours, with what the recipe's own file says besides."""
    if not job.slice["deepspeed"]:
        return None
    section, training = DeepSpeed.model_validate(job.slice["deepspeed"]), job.slice["training"]
    dtype, norm = job.slice["model"]["dtype"], training["max_grad_norm"]
    config = deepspeed_config(section, spread, dtype, norm, execution.nvme_path)
    own = job.sources.get("deepspeed")
    return with_users_own(config, read_json(own), training) if own else config


def _check_installed(job: Job, execution: Execution) -> None:
    """Missing packages are told before anything is loaded."""
    needed: dict[str, str] = dict.fromkeys(execution.report_to, "execution.report_to")
    if job.slice["deepspeed"]:
        needed["deepspeed"] = "the recipe"
    if "8bit" in job.slice["training"]["optimizer"]["name"]:
        needed["bitsandbytes"] = "training.optimizer"
    for name, asks in needed.items():
        module, package = TRACKERS.get(name, (name, name))
        if find_spec(module.partition(".")[0]) is None:
            raise BuildError(f"{package} is not installed but {asks} asks for it: pip install {package}")
    engine = job.slice["deepspeed"]
    if engine and DeepSpeed.model_validate(engine).uses_disk and find_library("aio") is None:
        raise BuildError(
            "offloading to nvme needs the library libaio with its headers: apt install libaio-dev"
        )


def _launch(spec: Spec, processes: int, job: Job) -> None:
    """Run torchrun, show what rank 0 says, and turn a failure into one line."""
    path = Path(spec.folder) / "spec.json"
    spec.write(path)
    spec.error.unlink(missing_ok=True)
    spec.progress.write_text("")
    child = subprocess.Popen(
        _command(path, processes), env=_environment(job, processes), preexec_fn=die_with_parent
    )
    shown = 0
    try:
        while child.poll() is None:
            shown = _relay(spec.progress, shown)
            time.sleep(POLL)
    finally:
        child.kill()  # ranks die with it; after its own end this does nothing
        child.wait()
    _relay(spec.progress, shown)
    if child.returncode:
        reason = spec.error.read_text().strip() if spec.error.exists() else ""
        raise BuildError(f"training stopped: {reason or _unexplained(child.returncode)}")


def _unexplained(status: int) -> str:
    """A rank that left no word was killed or crashed; torchrun itself ends with 1 then."""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"a rank ended without a word ({how}): is main memory or the disk full? See the log and `dmesg`"


def _command(spec: Path, processes: int) -> list[str]:
    """What is started: torchrun, or the only rank itself, which saves the launcher's `import torch`."""
    program = ["-m", "workflow.training.program", str(spec)]
    if processes == 1:
        return [sys.executable, *program]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    torchrun += [f"--log-dir={spec.parent}"]  # its folder goes with the work, not left in /tmp after a kill
    return [sys.executable, *torchrun, *program]


def _relay(path: Path, shown: int) -> int:
    """Show whole lines that were added to `path` behind position `shown`; the new position."""
    with path.open("rb") as file:
        file.seek(shown)
        added = file.read()
    whole = added[: added.rfind(b"\n") + 1]
    for line in whole.decode().splitlines():
        say(line)
    return shown + len(whole)


def _environment(job: Job, processes: int) -> dict[str, str]:
    """Deterministic, offline, and with as many threads as the rule was given."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"} if processes == 1 else {}
    cpu = {} if visible_gpus() else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(max(1, job.resources.threads // processes)),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "warning",
        "TENSORBOARD_LOGGING_DIR": f"logs/tensorboard/{job.work.name}",  # not in the work folder, which goes
        **alone,
        **cpu,
    }
