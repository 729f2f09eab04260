"""What the job tells the ranks, and the arithmetic of batches."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workflow.errors import BuildError


@dataclass(frozen=True)
class Batching:
    """How a batch is spread; batch_size = processes * micro_batch * accumulation."""

    processes: int
    micro_batch: int
    accumulation: int


def batching(batch_size: int, processes: int, micro_batch: int | None) -> Batching:
    """Spread a batch over processes.

    Raises:
        BuildError: It cannot be spread evenly; the message names what can.
    """
    if batch_size % processes:
        nearest = max(p for p in range(1, processes + 1) if batch_size % p == 0)
        raise BuildError(
            f"training.batch_size {batch_size} cannot be spread over {processes} processes; "
            f"use {nearest} (execution.processes) or a batch_size that {processes} divides"
        )
    share = batch_size // processes
    micro = micro_batch or share
    if share % micro:
        possible = ", ".join(str(m) for m in range(1, share + 1) if share % m == 0)
        raise BuildError(
            f"execution.micro_batch {micro} does not divide the {share} rows of each of {processes} "
            f"process(es); possible are {possible}"
        )
    return Batching(processes, micro, share // micro)


@dataclass(frozen=True)
class Spec:
    """One training, as the ranks read it from a JSON file."""

    slice: dict[str, Any]
    shards: str
    model: str
    out: str
    folder: str
    """Checkpoints of this world size."""
    resume: str | None
    micro_batch: int
    accumulation: int
    gradient_checkpointing: bool
    save_steps: int | None
    save_epochs: int | None
    keep_checkpoints: int
    deepspeed: dict[str, Any] | None = None
    """The whole configuration of the engine."""
    report_to: list[str] = field(default_factory=list)
    start: str | None = None
    """Folder of the adapter that training starts from."""

    @property
    def progress(self) -> Path:
        """File to which rank 0 appends what the job is to show."""
        return Path(self.folder) / "progress.txt"

    @property
    def error(self) -> Path:
        """File in which a failing rank leaves an expected error."""
        return Path(self.folder) / "error.txt"

    @property
    def facts(self) -> Path:
        """File with the counts of a finished training."""
        return Path(self.folder) / "facts.json"

    def write(self, path: Path) -> None:
        """Write the spec as JSON."""
        path.write_text(json.dumps(asdict(self), ensure_ascii=False))

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read it back."""
        return cls(**json.loads(path.read_text()))
