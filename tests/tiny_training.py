"""Trainings for tests: a tiny random model, token rows, jobs, and what they leave."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from token_rows import write_shard

from workflow.recipe.leaf import slice_of
from workflow.recipe.training import DeepSpeed, Training
from workflow.store.build import Job, Resources
from workflow.tokens import Rendering, TokenRow, write_rendering

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
    if "max_steps" in changes:
        del given["epochs"]
    return slice_of(Training.model_validate(given | changes), "adapter")


def engine(stage: int | None, **more: Any) -> dict[str, Any] | None:
    """The section deepspeed as a plan has it."""
    return (
        None if stage is None else slice_of(DeepSpeed.model_validate({"zero_stage": stage} | more), "adapter")
    )


def job(
    root: Path, inputs: dict[str, Path], *, stage: int | None = None, offload: Any = None, processes: int = 1,
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
            "deepspeed": engine(stage, **(offload or {})),
            "model": {"dtype": dtype},
        },
        inputs=inputs,
        sources={},
        out=out,
        work=work,
        pieces=root / "pieces",
        execution={"processes": processes, **(execution or {})},
        resources=Resources(threads=processes),
    )


def write_inputs(root: Path) -> dict[str, Path]:
    """A tiny Qwen2 with random weights, the same as config alone, and shards."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=130, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "model")
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(root / "scratch")
    for name in ("model", "scratch"):
        (root / name / "tokenizer.json").write_text("{}")
    (root / "shards").mkdir()
    rows = token_rows()
    write_shard(root / "shards", 0, rows[:10])
    write_shard(root / "shards", 1, rows[10:])
    write_rendering(root / "shards", Rendering([2], [], 0))
    return {"shards": root / "shards", "model": root / "model", "scratch": root / "scratch"}


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "out").iterdir()}


def losses(root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (root / "out" / "loss.jsonl").read_text().splitlines()]


def start(job: Job) -> subprocess.Popen[str]:
    """Train in a process of its own, as Snakemake's job does."""
    path = job.work.parent / "job.pickle"
    path.write_bytes(pickle.dumps(job))
    code = "import pickle, sys; from workflow.products.adapter import make; "
    code += "make(pickle.load(open(sys.argv[1], 'rb')))"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def trained(job: Job) -> str:
    """Train to the end; what was printed."""
    child = start(job)
    printed, _ = child.communicate()
    assert child.returncode == 0, printed
    return printed


def check_adapter(folder: Path, base: Path) -> None:
    """The adapter is one that PEFT itself reads, every tensor of it, and it changes the model."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 7  # A and B, layers, linear modules
    assert all(name.startswith("base_model.model.model.layers.") for name in tensors)
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) for name in tensors)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] is None
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    for name, tensor in tensors.items():
        assert torch.equal(
            model.get_parameter(name.replace(".weight", ".default.weight")).float(), tensor.float()
        )
    assert all(tensor.abs().max() > 0 for tensor in tensors.values())
