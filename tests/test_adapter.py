"""The product `adapter`: real trainings of a tiny model, and the rules that need none."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_training import Forks
from tiny_training import FULL, LORA, check_adapter, job, losses, start, trained, write_inputs

from workflow.errors import BuildError
from workflow.products import adapter
from workflow.tokens import read_rows
from workflow.training.program import explain, leave_error
from workflow.training.spec import Batching, Spec, batching
from workflow.training.stream import order


def spec(tmp_path: Path, **changes: Any) -> Spec:
    given: dict[str, Any] = {
        "slice": {"deepspeed": None}, "shards": "", "model": "", "out": "",
        "folder": str(tmp_path), "resume": None,
        "micro_batch": 4, "accumulation": 1, "gradient_checkpointing": False, "save_steps": 1,
        "save_epochs": None, "keep_checkpoints": 1,
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
    with pytest.raises(
        BuildError, match=r"micro_batch 4 does not divide the 6 rows .* possible are 1, 2, 3, 6"
    ):
        batching(12, 2, 4)


def test_a_rank_that_was_killed_is_explained() -> None:
    assert "(signal 9): is main memory or the disk full?" in adapter._unexplained(-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", [None, 2])
def test_adapters_are_float32_and_the_last_step_is_logged(
    tmp_path: Path, inputs: dict[str, Path], server: Forks, stage: int | None
) -> None:
    from safetensors.torch import load_file

    server.train(job(tmp_path, inputs, stage=stage, dtype="bfloat16", log_steps=5))
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert [line["step"] for line in losses(tmp_path)] == [1, 5, 7]


# --- errors ---------------------------------------------------------------------------------------------


def test_full_memory_names_what_to_change(tmp_path: Path) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    error = OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB\nmore"
    )
    line = explain(error, spec(tmp_path, slice={"deepspeed": {"zero_stage": 2}}))
    assert "\n" not in line
    assert "Tried to allocate 2.00 GiB); change" in line
    for way in ("micro_batch 4 -> 2", "gradient_checkpointing true", "zero_stage 2 -> 3"):
        assert way in line
    last = explain(
        error,
        spec(tmp_path, slice={"deepspeed": {"zero_stage": 3}}, micro_batch=1, gradient_checkpointing=True),
    )
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
    with pytest.raises(
        BuildError, match=r"planned for 4 GPUs .* given 0; start the build with `--resources gpu=4`"
    ):
        adapter.make(job(tmp_path, {}, processes=4))


def test_deepspeed_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(
        BuildError, match="deepspeed is not installed but the recipe asks for it: pip install deepspeed"
    ):
        adapter.make(job(tmp_path, {}, stage=2))


def test_missing_packages_are_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    tracked = job(tmp_path / "a", {}, execution={"report_to": ["comet_ml"]})
    with pytest.raises(
        BuildError, match="comet-ml is not installed but execution.report_to asks for it: pip"
    ):
        adapter.make(tracked)
    with pytest.raises(BuildError, match="bitsandbytes is not installed but training.optimizer asks for it"):
        adapter.make(job(tmp_path / "b", {}, optimizer="paged_adamw_8bit"))


def test_nvme_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "find_library", lambda name: None)
    with pytest.raises(BuildError, match="needs the library libaio"):
        adapter.make(job(tmp_path, {}, stage=3, offload={"offload_optimizer": "nvme"}))


def test_a_batch_that_two_processes_cannot_share_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="batch_size 3 cannot be spread over 2 processes"):
        adapter.make(job(tmp_path, {}, processes=2, batch_size=3))


def test_threads_wait_without_spinning_on_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(adapter, "visible_gpus", list)
    assert adapter._environment(job(tmp_path, {}), 1)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert adapter._environment(job(tmp_path, {}), 1)["OMP_WAIT_POLICY"] == "ACTIVE"


# --- real trainings -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Qwen2 with random weights, the same as config alone, and shards."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", [0, 1])
def test_the_engine_runs_the_stage_that_was_asked_for(
    tmp_path: Path, inputs: dict[str, Path], stage: int
) -> None:
    given = job(tmp_path, inputs, stage=stage, processes=2, execution={"gradient_checkpointing": True})
    assert f"deepspeed engine: zero stage {stage}" in trained(given)
    check_adapter(tmp_path / "out", inputs["model"])


def by_hand(inputs: dict[str, Path], training: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """Losses and weights of plain AdamW on a linear schedule, without ranks, padding or blank rows."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(inputs["model"])
    rows = list(read_rows(inputs["shards"]))
    positions = order(len(rows), training["epochs"], training["seed"])
    size, steps = training["batch_size"], math.ceil(len(positions) / training["batch_size"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=training["learning_rate"], weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    seen = []
    for step in range(steps):
        batch = [rows[i] for i in positions[step * size : (step + 1) * size]]
        tokens = sum(int(row.trained[1:].sum()) for row in batch)
        total = 0.0
        for row in batch:
            ids = torch.from_numpy(row.input_ids.astype(np.int64))
            counted = torch.from_numpy(row.trained[1:] == 1)
            logits = model(ids[None]).logits[0, :-1]
            loss = (
                torch.nn.functional.cross_entropy(logits[counted], ids[1:][counted], reduction="sum") / tokens
            )
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training["max_grad_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen.append(total)
    return seen, model.state_dict()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_way_to_run_is_plain_adamw(tmp_path: Path, inputs: dict[str, Path], server: Forks) -> None:
    """Micro batches, ranks and engines change no loss and no weight."""
    from safetensors.torch import load_file

    ways: dict[str, dict[str, Any]] = {
        "accumulated": {"execution": {"micro_batch": 1}},
        "ranks": {"processes": 2},
        "zero3": {"processes": 2, "stage": 3, "execution": {"micro_batch": 1}},
    }
    jobs = {
        name: job(tmp_path / name, inputs, tuning=FULL, learning_rate=1e-3, **way)
        for name, way in ways.items()
    }
    expected, weights = by_hand(inputs, jobs["ranks"].slice["training"])
    for each in jobs.values():
        server.train(each)
    for name in jobs:
        found = [line["loss"] for line in losses(tmp_path / name)]
        assert found == pytest.approx(expected, rel=1e-5), name
        tensors = load_file(tmp_path / name / "out" / "model.safetensors")
        assert tensors.keys() == weights.keys()
        for key, tensor in tensors.items():
            assert (tensor - weights[key]).abs().max() < 2e-5, (name, key)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_from_scratch_is_the_same_model_under_zero_3(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """By the real launcher; two trainings at once do not meet."""
    from transformers import AutoModelForCausalLM

    scratch = {**inputs, "model": inputs["scratch"]}
    plain = job(tmp_path / "plain", scratch, tuning=FULL, dtype="bfloat16")
    zero3 = job(tmp_path / "zero3", scratch, tuning=FULL, stage=3, processes=2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(trained, [plain, zero3]))
    assert losses(tmp_path / "plain")[0]["loss"] == pytest.approx(
        losses(tmp_path / "zero3")[0]["loss"], rel=2e-3
    )
    for name, dtype in {"plain": "torch.bfloat16", "zero3": "torch.float32"}.items():
        model, report = AutoModelForCausalLM.from_pretrained(
            tmp_path / name / "out", dtype="auto", output_loading_info=True
        )
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert {str(p.dtype) for p in model.parameters()} == {dtype}
        assert model.config.use_cache


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_half_precision_and_a_wrong_target_under_an_engine(tmp_path: Path, inputs: dict[str, Path]) -> None:
    typo = LORA | {"target_modules": ["q_porj", "v_proj"]}
    wrong = job(tmp_path / "wrong", inputs, stage=3, processes=2, tuning=typo)
    right = job(
        tmp_path / "right", inputs, stage=2, dtype="bfloat16", tuning=LORA | {"target_modules": ["v_proj"]}
    )
    with ThreadPoolExecutor(2) as pool:
        printed = pool.submit(lambda: start(wrong).communicate()[0])
        trained(right)
    line = next(line for line in printed.result().splitlines() if "BuildError: training" in line)
    assert (
        "tuning.target_modules: q_porj match nothing in the model; its linear modules are down_proj, " in line
    )
    assert all(math.isfinite(line["loss"]) for line in losses(tmp_path / "right"))
