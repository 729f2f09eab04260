"""The product `adapter`: real trainings of a tiny model, and the rules that need none."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workflow.errors import BuildError
from workflow.products import adapter
from workflow.recipe.training import Training
from workflow.store.build import Job, Resources
from workflow.tokens import Rendering, TokenRow, read_rows, write_rendering, write_shard
from workflow.training.checkpoints import MANIFEST, is_whole, newest_whole, rotate, seal_checkpoint
from workflow.training.program import explain, leave_error
from workflow.training.spec import Batching, Spec, batching, optimizer_steps
from workflow.training.stream import Collator, Stream, order

LORA = {"method": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": "all-linear"}
FULL = {"method": "full"}
ROWS = 26
"""Not a multiple of the batch size: the last batch has blank rows."""


def token_rows(count: int = ROWS, tokens: int = 12) -> list[TokenRow]:
    """Rows of different lengths, the first third of each a prompt."""
    random = np.random.default_rng(5)
    rows = []
    for i in range(count):
        n = tokens + int(random.integers(0, tokens))
        trained = (np.arange(n) >= n // 3).astype(np.uint8)
        ids = random.integers(3, 120, n).astype(np.int32)
        rows.append(TokenRow(f"row-{i:03d}", ids, trained, n // 3))
    return rows


def settings(**changes: Any) -> dict[str, Any]:
    """The training section with every default, as a plan has it."""
    given: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-2, "batch_size": 4, "seed": 3, "log_steps": 1}
    return Training.model_validate(given | changes).model_dump(mode="json")


def job(
    root: Path, inputs: dict[str, Path], *, stage: int | None = None, processes: int = 1,
    tuning: Any = LORA, dtype: str = "float32", execution: Any = None, **training: Any,
) -> Job:  # fmt: skip
    """A job as `build` makes it."""
    out, work = root / "out", root / "work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    return Job(
        slice={
            "tuning": tuning,
            "training": settings(**training),
            "deepspeed": None if stage is None else {"zero_stage": stage},
            "model": {"dtype": dtype},
        },
        inputs=inputs,
        sources={},
        out=out,
        work=work,
        execution={"processes": processes, **(execution or {})},
        resources=Resources(threads=processes),
    )


def spec(tmp_path: Path, **changes: Any) -> Spec:
    given: dict[str, Any] = {
        "slice": {"deepspeed": None}, "shards": "", "model": "", "out": "", "folder": str(tmp_path), "resume": None,
        "micro_batch": 4, "accumulation": 1, "gradient_checkpointing": False, "save_steps": 1, "keep_checkpoints": 1,
    }  # fmt: skip
    return Spec(**(given | changes))


# --- batches --------------------------------------------------------------------------------------------


def test_a_batch_is_spread_over_processes_and_micro_batches() -> None:
    assert batching(8, 2, None) == Batching(2, 4, 1)
    assert batching(8, 2, 1) == Batching(2, 1, 4)
    assert batching(1, 1, None) == Batching(1, 1, 1)


def test_a_batch_that_cannot_be_spread_names_what_can() -> None:
    with pytest.raises(BuildError, match=r"batch_size 6 cannot be spread over 4 processes; use 3 \("):
        batching(6, 4, None)
    with pytest.raises(BuildError, match=r"micro_batch 4 does not divide the 6 rows .* possible are 1, 2, 3, 6"):
        batching(12, 2, 4)


def test_steps_are_those_of_one_stream_of_all_epochs() -> None:
    assert optimizer_steps(26, 3, 4) == 20  # 78 rows, not three times ceil(26 / 4)


# --- order ----------------------------------------------------------------------------------------------


def test_each_epoch_is_another_permutation() -> None:
    positions = order(50, 2, 7)
    assert sorted(positions[:50]) == sorted(positions[50:]) == list(range(50))
    assert positions[:50] != positions[50:]
    assert positions == order(50, 2, 7) != order(50, 2, 8)
    assert positions[:50] == order(50, 1, 7)


def test_a_stream_is_the_order_then_blank_rows() -> None:
    rows = token_rows(5)
    stream = Stream(rows, 1, 3, 4)
    assert len(stream) == 8
    assert [row.id if row else None for row in map(stream.__getitem__, range(8))] == [
        *(rows[i].id for i in order(5, 1, 3)), None, None, None,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_blank_row_has_one_token_and_no_label() -> None:
    row = TokenRow("a", np.array([5, 0, 7], np.int32), np.array([0, 1, 1], np.uint8), 1)
    batch = Collator(0)([row, None])
    assert batch["input_ids"].tolist() == [[5, 0, 7], [0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]  # a token equal to padding is a token
    assert batch["labels"].tolist() == [[-100, 0, 7], [-100, -100, -100]]


# --- checkpoints ----------------------------------------------------------------------------------------


def checkpoint(folder: Path, step: int, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "rank").mkdir(parents=True)
    (path / "rank" / "optimizer.pt").write_bytes(b"momentum" * step)
    (path / "trainer_state.json").write_text("{}")
    if sealed:
        seal_checkpoint(path)
    return path


def test_a_half_written_checkpoint_is_left_out_and_deleted(tmp_path: Path) -> None:
    whole, half = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10, sealed=False)
    assert newest_whole(tmp_path) == whole
    assert not half.exists()


@pytest.mark.parametrize("file", ["rank/optimizer.pt", "trainer_state.json", MANIFEST])
def test_a_flipped_byte_breaks_a_checkpoint(tmp_path: Path, file: str) -> None:
    older, newer = checkpoint(tmp_path, 2), checkpoint(tmp_path, 10)
    data = bytearray((newer / file).read_bytes())
    data[0] ^= 1
    (newer / file).write_bytes(data)
    assert newest_whole(tmp_path) == older


def test_a_missing_or_added_file_breaks_a_checkpoint(tmp_path: Path) -> None:
    one, two = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (one / "rank" / "optimizer.pt").unlink()
    (two / "evil.pkl").write_text("x")
    assert not is_whole(one)
    assert not is_whole(two)
    assert newest_whole(tmp_path) is None


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 100):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-final").mkdir()  # not ours
    rotate(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-final"]


# --- errors ---------------------------------------------------------------------------------------------


def test_full_memory_names_what_to_change(tmp_path: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    error = OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB\nmore")
    line = explain(error, spec(tmp_path, slice={"deepspeed": {"zero_stage": 2}}))
    assert "\n" not in line
    assert "Tried to allocate 2.00 GiB;" in line
    for way in ("micro_batch 4 -> 2", "gradient_checkpointing true", "zero_stage 2 -> 3"):
        assert way in line
    last = explain(error, spec(tmp_path, slice={"deepspeed": {"zero_stage": 3}}, micro_batch=1, gradient_checkpointing=True))
    assert last.endswith("use more or larger GPUs")


def test_other_errors_are_one_line(tmp_path: Path) -> None:
    assert explain(ValueError("bad\nlong"), spec(tmp_path)) == "ValueError: bad (traceback in the log)"
    assert explain(KeyError(), spec(tmp_path)) == "KeyError: KeyError (traceback in the log)"


def test_the_first_rank_that_fails_is_the_one_heard(tmp_path: Path) -> None:
    leave_error(spec(tmp_path), "the cause")
    leave_error(spec(tmp_path), "Connection closed by peer")
    assert spec(tmp_path).error.read_text() == "the cause"


def test_fewer_gpus_than_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "visible_gpus", lambda: ["0"])
    with pytest.raises(BuildError, match=r"planned for 4 GPUs .* given 0; start the build with `--resources gpu=4`"):
        adapter.make(job(tmp_path, {}, processes=4))


def test_deepspeed_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match="deepspeed is not installed .* pip install deepspeed"):
        adapter.make(job(tmp_path, {}, stage=2))


def test_a_batch_that_two_processes_cannot_share_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="batch_size 3 cannot be spread over 2 processes"):
        adapter.make(job(tmp_path, {}, processes=2, batch_size=3))


def test_threads_wait_without_spinning_on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(adapter, "visible_gpus", list)
    assert adapter._environment(job(tmp_path, {}), 1)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert adapter._environment(job(tmp_path, {}), 1)["OMP_WAIT_POLICY"] == "ACTIVE"
