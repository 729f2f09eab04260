"""Merging a LoRA into a model of 2.2 GB, beside PEFT's `merge_and_unload` and `save_pretrained`.

    python bench/merge.py [--pairs 5] [--layers 22] [--save bench/merge.json]

The model has the shape of TinyLlama (1.1 B parameters, bfloat16) and random weights, the adapter rank 16 on
all linear modules. Both take turns, each in a process of its own: wall and CPU seconds of the whole process,
of the merge without imports, and the peak of resident memory. The results are compared byte by byte.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # not bench/, whose tokenize.py would shadow the standard library's

TIMED = """
import json, sys, time
from pathlib import Path
base, adapter, out = map(Path, sys.argv[1:])
{imports}
began = time.perf_counter()
{merge}
print(json.dumps(time.perf_counter() - began))
"""
OURS = TIMED.format(
    imports="import torch\nfrom workflow.products.merged import merge",
    merge="out.mkdir(); merge(base, adapter, out)",
)
PEFT = TIMED.format(
    imports="from peft import PeftModel\nfrom transformers import AutoModelForCausalLM",
    merge="model = AutoModelForCausalLM.from_pretrained(base, dtype='auto')\n"
    "model = PeftModel.from_pretrained(model, adapter)\n"
    "model.merge_and_unload().save_pretrained(out)",
)


def main() -> None:
    """Make the model, run both in turns, and print medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="turns of each")
    parser.add_argument("--layers", type=int, default=22, help="layers of the model; 22 are 2.2 GB")
    parser.add_argument("--save", type=Path, help="file for the raw figures (JSON)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        made = subprocess.run(
            [sys.executable, __file__, "--make", str(root), str(options.layers)], check=False
        )
        if made.returncode:
            raise SystemExit("the model could not be made")
        results = compare(root, options.pairs)
    for name, value in results["ratios"].items():
        print(f"{name:20} ours / PEFT {value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})")
    if options.save:
        options.save.write_text(json.dumps(results, indent=1) + "\n")


def make(root: Path, layers: int) -> None:
    """Write the model and the adapter; in a process of its own, so that no memory of it stays."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=4, vocab_size=32000, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(root / "base", max_shard_size="1GB")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.02
    adapted.save_pretrained(root / "adapter", save_embedding_layers=False)


def compare(root: Path, pairs: int) -> dict[str, Any]:
    """Run both in turns, after one turn that fills the cache of files and is compared."""
    run(OURS, root, "ours")
    run(PEFT, root, "peft")
    same = weights(root / "ours") == weights(root / "peft")
    if not same:
        raise SystemExit("the two merged models differ")
    ours, peft = [], []
    for _ in range(pairs):
        for program, name, found in ((OURS, "ours", ours), (PEFT, "peft", peft)):
            shutil.rmtree(root / name)
            found.append(run(program, root, name))
            print(name, found[-1], flush=True)
    ratios = {}
    for key in ours[0]:
        each = [a[key] / b[key] for a, b in zip(ours, peft, strict=True)]
        median = statistics.median(a[key] for a in ours) / statistics.median(b[key] for b in peft)
        ratios[key] = {"median": median, "min": min(each), "max": max(each)}
    size = sum(path.stat().st_size for path in (root / "base").glob("*.safetensors"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "bytes": size, "equal": same, "ratios": ratios, "ours": ours, "peft": peft}


def run(program: str, root: Path, out: str) -> dict[str, float]:
    """Wall and CPU seconds, seconds without imports, and peak memory in MB, of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, "-c", program, *(str(root / name) for name in ("base", "adapter", out))]
    began = time.perf_counter()
    child = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{out}: ended with status {status}")
    return {
        "process seconds": round(wall, 3),
        "merge seconds": round(json.loads(said.splitlines()[-1]), 3),
        "CPU seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak MB": round(usage.ru_maxrss * 1024 / 1e6, 1),
    }


def weights(folder: Path) -> dict[str, str]:
    """Tensor -> digest of its bytes."""
    import hashlib

    from workflow.checkpoint import read_tensor, weight_files

    found = {}
    for file in weight_files(folder):
        with file.path.open("rb", buffering=0) as reader:
            for name, tensor in file.tensors.items():
                found[name] = hashlib.sha256(read_tensor(reader, tensor)).hexdigest()
    return found


if __name__ == "__main__":
    if "--make" in sys.argv:
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
