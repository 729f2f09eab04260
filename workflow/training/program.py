"""The rank program: `torchrun -m workflow.training.program SPEC`."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from workflow.death import die_with_parent
from workflow.disk import refusal
from workflow.errors import BuildError
from workflow.training.spec import Spec


def main(path: str) -> NoReturn:
    """Train as one rank of many and exit: with 0, or with 1 after a failure, which the error file explains.

    It does not return: other ranks may wait for this one in a collective, and gloo's threads can abort an
    interpreter that takes itself apart (seen once in 25 trainings of two ranks).
    """
    die_with_parent()
    spec, status = Spec.read(Path(path)), 1
    try:
        from workflow.training.training import train

        train(spec)
    except BuildError as error:
        leave_error(spec, str(error))
    except Exception as error:
        traceback.print_exc()
        leave_error(spec, explain(error, spec))
    else:
        status = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def leave_error(spec: Spec, line: str) -> None:
    """Write what the job is to say; the first rank is the cause, the others only lose their connection."""
    with suppress(OSError), spec.error.open("x") as file:  # it is there, or the disk is full
        file.write(line)


def explain(error: BaseException, spec: Spec) -> str:
    """One line for what went wrong: memory with what to change, else the library's own words."""
    if isinstance(error, Exception) and (line := refusal(error, Path(spec.folder))):
        return line
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    if type(error).__name__ == "OutOfMemoryError" or "out of memory" in first:
        return f"GPU memory is full ({first.split('. GPU')[0]}); {_remedies(spec)}"
    return f"{type(error).__name__}: {first} (traceback in the log)"


def _remedies(spec: Spec) -> str:
    deepspeed: Any = spec.slice["deepspeed"]
    stage = deepspeed["zero_stage"] if deepspeed else 0
    ways = []
    if spec.micro_batch > 1:
        ways.append(f"execution.micro_batch {spec.micro_batch} -> {spec.micro_batch // 2}")
    if not spec.gradient_checkpointing:
        ways.append("execution.gradient_checkpointing true")
    if stage < 3:
        ways.append(f"deepspeed.zero_stage {stage} -> {stage + 1} (on several GPUs)")
    return "change " + ", or ".join(ways) if ways else "use more or larger GPUs"


if __name__ == "__main__":
    main(sys.argv[1])
