"""Training on one GPU: random weights of Qwen2-7B's shape, LoRA in bf16, packed and not, against TRL.

    python bench/train_gpu.py                 # on a GPU with 40 GB or more; about 15 minutes
    python bench/train_gpu.py --tiny          # the same on CPU with a tiny model, to see that it runs

Rows have the lengths of tutorial 0 (median 393 tokens, 95 % below 749, longest 1484); every token but the
first half of a row is trained. Ours is the job `adapter` from recipe values to saved adapter; TRL's is
SFTTrainer with packing, where it can be imported. Each run is a process of its own. Figures: tokens a second
inside `train()`, without padding; peak memory of the GPU; and the share of the best matrix product that this
GPU was seen to do: 4 FLOP per linear weight and token (forward, and gradients of activations; frozen weights
have none), so recomputation and attention count as lost. Raw figures go to train_gpu.json beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != ROOT / "bench")]

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from typing import Any  # noqa: E402

QWEN2_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "rope_theta": 1e6, "tie_word_embeddings": False,
}  # fmt: skip
"""https://huggingface.co/Qwen/Qwen2-7B-Instruct, config.json."""
TINY = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 200, "tie_word_embeddings": False,
}  # fmt: skip
LORA = {"method": "lora", "r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    config: dict[str, Any]
    rows: int
    pack: int
    batch: int  # rows, unpacked
    matrix: int
    scale: float  # of row lengths
    dtype: str


FULL = Size(QWEN2_7B, 1200, 4096, 16, 8192, 1.0, "bfloat16")
SMALL = Size(TINY, 64, 128, 8, 256, 0.05, "float32")


def write_inputs(root: Path, size: Size) -> None:
    """Model and token rows, the same every time."""
    import numpy as np
    import torch
    from token_rows import write_shard
    from transformers import AutoModelForCausalLM, Qwen2Config

    from workflow.tokens import Rendering, TokenRow, write_rendering

    torch.manual_seed(1)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**size.config), dtype=getattr(torch, size.dtype))
    model.save_pretrained(root / "model")
    (root / "model/tokenizer.json").write_text("{}")
    random = np.random.Generator(np.random.PCG64(1))
    lengths = np.clip(random.lognormal(5.97, 0.4, size.rows), 60, 1484) * size.scale
    rows = []
    for i, n in enumerate(np.maximum(lengths.astype(int), 4)):
        ids = random.integers(3, size.config["vocab_size"] - 3, n).astype(np.int32)
        rows.append(TokenRow(f"row-{i:05d}", ids, (np.arange(n) >= n // 2).astype(np.uint8), int(n) // 2))
    (root / "shards").mkdir()
    write_shard(root / "shards", 0, rows)
    write_rendering(root / "shards", Rendering([2], [], 0))


def ours(root: Path, folder: Path, size: Size, packed: bool) -> dict[str, Any]:
    """The job `adapter`; a packed batch has about as many tokens as an unpacked one."""
    import torch
    from tiny_training import job

    from workflow.products.adapter import make
    from workflow.store.build import Resources

    inputs = {name: root / name for name in ("shards", "model")}
    choices = {"packing": {"length": size.pack}, "batch_size": 2} if packed else {"batch_size": size.batch}
    execution = {"micro_batch": 1 if packed else 4, "gradient_checkpointing": True, "save_steps": 10**6}
    given = job(
        folder, inputs, tuning=LORA, dtype=size.dtype, execution=execution, **choices,
        learning_rate=1e-4, log_steps=10,
    )  # fmt: skip
    counts = make(
        replace(given, resources=Resources(threads=os.cpu_count() or 1, gpus=int(torch.cuda.is_available())))
    )
    run = json.loads((given.work / "run.json").read_text())
    last = json.loads((given.out / "loss.jsonl").read_text().splitlines()[-1])
    return {
        "tokens_per_second": run["tokens_per_second"], "seconds": run["train_seconds"],
        "tokens": counts["tokens"], "steps": counts["steps"], "loss": last["loss"],
        "peak_bytes": run.get("peak_gpu_bytes"), "packed_share": counts.get("packed_share"),
    }  # fmt: skip


def trl(root: Path, folder: Path, size: Size) -> dict[str, Any]:
    """SFTTrainer with its own packing (best-fit), else the same settings."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from workflow.tokens import read_rows

    rows = list(read_rows(root / "shards"))
    data = datasets.Dataset.from_dict({
        "input_ids": [row.input_ids.tolist() for row in rows],
        "completion_mask": [row.trained.tolist() for row in rows],
    })  # fmt: skip
    cuda = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(root / "model", dtype=getattr(torch, size.dtype))
    trainer = SFTTrainer(
        model=model.to("cuda") if cuda else model,
        train_dataset=data,
        peft_config=LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=str(folder), packing=True, max_length=size.pack, per_device_train_batch_size=1,
            gradient_accumulation_steps=2, num_train_epochs=1, learning_rate=1e-4, bf16=cuda,
            use_cpu=not cuda, gradient_checkpointing=True, logging_steps=10, save_strategy="no",
            report_to="none",
            dataset_kwargs={"skip_prepare_dataset": False},
        ),
    )  # fmt: skip
    began = time.monotonic()
    trainer.train()
    seconds, tokens = time.monotonic() - began, sum(len(row.input_ids) for row in rows)
    return {
        "tokens_per_second": tokens / seconds, "seconds": seconds, "tokens": tokens,
        "steps": trainer.state.global_step,
        "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
    }  # fmt: skip


def gemm(size: Size) -> dict[str, Any]:
    """The best of 20 square matrix products, FLOP a second."""
    import torch

    cuda = torch.cuda.is_available()
    n, device = size.matrix, "cuda" if cuda else "cpu"
    one = torch.randn(n, n, dtype=getattr(torch, size.dtype), device=device)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        one @ one
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    name = torch.cuda.get_device_name() if cuda else "cpu"
    return {"flops": 2 * n**3 / best, "device": name, "torch": torch.__version__}


def linear_weights(config: dict[str, Any]) -> int:
    """Weights of all linear layers, `lm_head` included."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    keys = hidden * config["num_key_value_heads"] // heads
    layer = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * config["intermediate_size"]
    return int(config["num_hidden_layers"] * layer + hidden * config["vocab_size"])


def main() -> None:
    """Run every side and print what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on any machine")
    parser.add_argument(
        "--save", type=Path, default=ROOT / "bench/train_gpu.json", help="file for raw figures"
    )
    parser.add_argument("--scratch", type=Path, help="folder with 20 GB of room; default: the temporary one")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = SMALL if options.tiny else FULL
    if options.side:
        _side(options.side, options.folder, size)
        return
    found: dict[str, Any] = {"config": size.config, "rows": size.rows, "pack": size.pack}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for side in ("inputs", "gemm", "packed", "unpacked", "trl"):
            found[side] = _run(side, Path(scratch), options.tiny)
    weights, peak = linear_weights(size.config), found["gemm"]["flops"]
    for side in ("packed", "unpacked", "trl"):
        if "tokens_per_second" in found[side]:
            speed = found[side]["tokens_per_second"]
            found[side]["share_of_gemm_peak"] = 4 * weights * speed / peak
            print(f"{side}: {speed:.0f} tokens/s, {found[side]['share_of_gemm_peak']:.1%} of the GEMM peak")
        else:
            print(f"{side}: {found[side]}")
    options.save.write_text(json.dumps(found, indent=1) + "\n")


def _side(side: str, folder: Path, size: Size) -> None:
    root = folder.parent
    if side == "inputs":
        write_inputs(root, size)
        result: dict[str, Any] = {}
    elif side == "gemm":
        result = gemm(size)
    elif side == "trl":
        result = trl(root, folder, size)
    else:
        result = ours(root, folder, size, side == "packed")
    (folder / "result.json").write_text(json.dumps(result))


def _run(side: str, scratch: Path, tiny: bool) -> dict[str, Any]:
    if side == "trl" and (find_spec("trl") is None or find_spec("datasets") is None):
        return {"left out": "trl or datasets is not installed"}
    folder = scratch / f"{side}.run"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), *["--tiny"] * tiny]
    with (folder / "log.txt").open("w") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    if status:
        failed = (folder / "log.txt").read_text()[-3000:]
        if side != "trl":
            raise SystemExit(failed)
        return {"failed": failed}
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


if __name__ == "__main__":
    main()
