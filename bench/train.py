"""What our runner costs: the step time of a recipe's training against a bare transformers + PEFT script.

    python bench/train.py --pairs 5

Both sides train the same LoRA on the same model, the same token rows in the same order, with the same
batches, optimizer, schedule, log and checkpoints; the losses are compared. Ours is the job `adapter` with
all that it does (verified checkpoints, deterministic kernels, its own log); the peer is the script that one
would write. Each run is a process of its own with one thread, sides take turns. The figure is the time of
all steps inside `Trainer.train`, by the clock and of the CPU, without imports and loading. Raw seconds go
to train.json beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != ROOT / "bench")]

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from typing import Any  # noqa: E402

SETTINGS: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8, "seed": 3, "log_steps": 10}
LORA = {"method": "lora", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all-linear"}
MICRO, SAVE = 4, 50


def write_inputs(root: Path, steps: int) -> dict[str, Path]:
    """A Qwen2 of 2 M parameters with random weights, and rows of 64 to 128 tokens."""
    import torch
    from tiny_training import token_rows
    from token_rows import write_shard
    from transformers import AutoModelForCausalLM, Qwen2Config

    from workflow.tokens import Rendering, write_rendering

    config = Qwen2Config(
        hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=3, vocab_size=2000,
    )  # fmt: skip
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "model")
    (root / "model/tokenizer.json").write_text("{}")
    (root / "shards").mkdir()
    write_shard(root / "shards", 0, token_rows(steps * SETTINGS["batch_size"], tokens=64))
    write_rendering(root / "shards", Rendering([2], [], 0))
    return {"shards": root / "shards", "model": root / "model"}


def ours(inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """The job `adapter`, which starts its rank itself."""
    from tiny_training import job

    from workflow.products.adapter import make

    given = job(out, inputs, tuning=LORA, execution={"micro_batch": MICRO, "save_steps": SAVE}, **SETTINGS)
    counts = make(given)
    run = json.loads((given.work / "run.json").read_text())
    last = json.loads((given.out / "loss.jsonl").read_text().splitlines()[-1])
    found = {"seconds": run["train_seconds"], "cpu_seconds": run["train_cpu_seconds"]}
    return {**found, "steps": counts["steps"], "loss": last["loss"]}


def bare(inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """What a script does with transformers and PEFT."""
    import time

    import torch
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed

    from workflow.tokens import read_rows
    from workflow.training.stream import Stream

    size, seed = SETTINGS["batch_size"], SETTINGS["seed"]
    stream = Stream([(row,) for row in read_rows(inputs["shards"])], 1, seed, size)
    rows = [stream.units[position][0] for position in stream.positions]

    def collate(batch: list[Any]) -> dict[str, Any]:
        longest = max(len(row.input_ids) for row in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, row in enumerate(batch):
            n = len(row.input_ids)
            ids[i, :n], mask[i, :n] = torch.from_numpy(row.input_ids.astype("int64")), 1
            labels[i, :n] = torch.where(torch.from_numpy(row.trained) == 1, ids[i, :n], -100)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    model = AutoModelForCausalLM.from_pretrained(inputs["model"], dtype=torch.float32)
    model.config.use_cache = False
    set_seed(seed)
    model = get_peft_model(
        model,
        LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    arguments = TrainingArguments(
        output_dir=str(out), num_train_epochs=1, per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=size // MICRO, learning_rate=SETTINGS["learning_rate"],
        lr_scheduler_type="linear", optim="adamw_torch", logging_steps=SETTINGS["log_steps"], save_steps=SAVE,
        save_total_limit=2, seed=seed, use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
        report_to="none",
    )  # fmt: skip
    trainer = InOrder(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    torch.manual_seed(seed)
    began = time.monotonic(), time.process_time()
    trainer.train()
    seconds = time.monotonic() - began[0], time.process_time() - began[1]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    found = {"seconds": seconds[0], "cpu_seconds": seconds[1]}
    return {**found, "steps": trainer.state.global_step, "loss": losses[-1]}


def main() -> None:
    """Run all pairs and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of a run")
    parser.add_argument("--save", type=Path, default=ROOT / "bench/train.json", help="file for raw figures")
    parser.add_argument("--side", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        folder = options.folder
        inputs = {name: folder.parent / name for name in ("shards", "model")}
        result = (ours if options.side == "ours" else bare)(inputs, folder)
        (folder / "result.json").write_text(json.dumps(result))
        return
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch), options.steps)
        for pair in range(options.pairs):
            for side in ("ours", "bare") if pair % 2 else ("bare", "ours"):
                runs[side].append(_run(side, Path(scratch) / f"{side}-{pair}"))
    _report(runs, options)


def _run(side: str, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    with (folder / "log.txt").open("w") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    if status:
        raise SystemExit((folder / "log.txt").read_text()[-3000:])
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    print(
        f"{side}: {1000 * result['seconds'] / result['steps']:.1f} ms a step, last loss {result['loss']:.6f}"
    )
    return result


def _report(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """Median of the pairs' ratios; the trainings must have been the same."""
    losses = {round(run["loss"], 3) for side in runs.values() for run in side}
    if len(losses) > 1:
        raise SystemExit(f"the sides did not train the same: last losses {sorted(losses)}")
    found: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "runs": runs}
    for what in ("seconds", "cpu_seconds"):
        ratios = [a[what] / b[what] for a, b in zip(runs["ours"], runs["bare"], strict=True)]
        step = {name: statistics.median(r[what] / r["steps"] for r in side) for name, side in runs.items()}
        found[what] = {"ratios": ratios, "median_ratio": statistics.median(ratios), "median_step": step}
        print(
            f"{what} a step: ours {1000 * step['ours']:.1f} ms, bare {1000 * step['bare']:.1f} ms; "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    options.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
