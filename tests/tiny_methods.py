"""A task that a tiny model can learn, and trainings of it in forks of a process that has the imports."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
from tiny_training import job, losses
from token_rows import write_shard

from workflow.store.build import Job
from workflow.tokens import Rendering, TokenRow, write_rendering

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["workflow.training.training", "workflow.products.adapter", "peft"])

FACTORS = {"r": 8, "lora_alpha": 16}
METHODS: dict[str, dict[str, Any]] = {
    "lora": FACTORS,
    "dora": FACTORS,
    "rslora": FACTORS,
    "lora_plus": FACTORS | {"learning_rate_ratio": 4.0},
    "pissa": FACTORS,
    "qlora": FACTORS | {"quantization": {"type": "nf4", "double": True}},
    "ia3": {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "prompt_tuning": {"virtual_tokens": 4},
    "p_tuning": {"virtual_tokens": 4, "encoder_hidden_size": 16},
    "prefix_tuning": {"virtual_tokens": 4},
    "full": {},
}
SYMBOLS = 24


def write_task(root: Path, tied: bool = False) -> dict[str, Path]:
    """A tiny Qwen2 with random weights, and rows in which a fixed permutation says each next token."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=40, tie_word_embeddings=tied, initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "model")
    (root / "model/tokenizer.json").write_text("{}")
    (root / "shards").mkdir()
    write_shard(root / "shards", 0, _rows())
    write_rendering(root / "shards", Rendering([2], [], 0))
    return {"shards": root / "shards", "model": root / "model"}


def _rows() -> list[TokenRow]:
    random = np.random.default_rng(5)
    following = random.permutation(SYMBOLS)
    rows = []
    for i in range(64):
        ids = [int(random.integers(SYMBOLS))]
        for _ in range(11):
            ids.append(int(following[ids[-1]]))
        trained = np.array([0] + [1] * 11, np.uint8)
        rows.append(TokenRow(f"row-{i:03d}", np.array(ids, np.int32) + 3, trained, 1))
    return rows


def method(name: str, **changes: Any) -> dict[str, Any]:
    """The tuning section of a method."""
    return {"method": name, **METHODS[name], **changes}


def learn(root: Path, inputs: dict[str, Path], tuning: dict[str, Any], **training: Any) -> list[float]:
    """Train; the logged losses. A failure has its reason in `error.txt` and on stderr."""
    given = job(root, inputs, tuning=tuning, batch_size=16, log_steps=4, **training)
    child = FORKS.Process(target=_train, args=(given,))
    child.start()
    child.join()
    said = [path.read_text() for path in root.rglob("error.txt")]
    assert child.exitcode == 0, said
    return [line["loss"] for line in losses(root)]


def _train(given: Job) -> None:
    """What the only rank of a training does."""
    import warnings

    from workflow.products import adapter
    from workflow.recipe.training import Execution
    from workflow.training.program import main
    from workflow.training.spec import Batching

    warnings.simplefilter("ignore")
    os.environ.update(adapter._environment(given, 1))
    folder = given.work / "world"
    folder.mkdir(exist_ok=True)
    spec = adapter._spec(given, Execution(), Batching(1, given.slice["training"]["batch_size"], 1), folder)
    spec.write(folder / "spec.json")
    main(str(folder / "spec.json"))
