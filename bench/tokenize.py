"""Tokenizing against `datasets.map(num_proc=2)`: all rows, and all rows again with one of them edited.

    python bench/tokenize.py --rows 400000 --pairs 5

Both sides read the same JSON lines, use the same tokenizer (Qwen2's, rebuilt from its vocabulary) and end
with token ids and a label mask on disk; the ids of all rows are compared once. Ours is everything from
drawing the graph to the receipts, with every byte verified, and every proof per row; the peer is a batched
function as one would write it for LLaMA-Factory or axolotl. To the peer an edited file is a new one: it runs
once a turn, on the edited file, and its time stands for both. Each run is a process of its own, imports
included; sides take turns. Raw seconds go to tokenize.json beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT), str(ROOT / "tests"), *(p for p in sys.path if Path(p).resolve() != ROOT / "bench")]

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import lzma  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import random  # noqa: E402
import resource  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

BACKENDS = ("hf", "gigatoken")
SYSTEM = "你是一个音乐知识专家。"
HEADER = "以下是一段对话，请根据对话的内容继续回答，并在最后一行说明理由。对话如下：\n\n"
TEMPLATE = (
    f"{{% block system %}}{SYSTEM}{{% endblock %}}\n"
    f"{{% block user %}}{HEADER}{{{{ instruction }}}}{{% endblock %}}\n"
    "{% block assistant %}{{ output }}{% endblock %}\n"
)
RECIPE = """\
dataset: {train: {path: data.jsonl, format: alpaca}}
prompt: {template: p.jinja, max_length: 2048, overflow: drop}
model: {base: {scratch: qwen}, dtype: bfloat16}
tuning: {method: full}
training: {epochs: 1, learning_rate: 1.0e-4, batch_size: 4, seed: 1}
"""


def write_rows(path: Path, count: int) -> None:
    """Rows of about 2 KB: some turns of a conversation to answer, some to answer with, all different."""
    packed = ROOT / "bench/data/kdconv_music_dev.json.xz"
    talks = json.loads(lzma.decompress(packed.read_bytes()))
    turns = [
        m["message"] + "".join(a["attrvalue"] for a in m.get("attrs", []))[:80]
        for t in talks
        for m in t["messages"]
    ]
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            asked = "\n".join(draw.choices(turns, k=draw.randint(6, 14)))
            answer = "\n".join(draw.choices(turns, k=draw.randint(2, 6)))
            row = {"instruction": f"{number}\n{asked}", "input": "", "output": f"{answer}\n第{number}题"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def edit(path: Path, turn: int) -> None:
    """Change one row in the middle."""
    lines = path.read_bytes().split(b"\n")
    row = json.loads(lines[len(lines) // 2])
    row["output"] += f"（改{turn}）"
    lines[len(lines) // 2] = json.dumps(row, ensure_ascii=False).encode()
    path.write_bytes(b"\n".join(lines))


Made = tuple[dict[str, float], Callable[[], Iterable[Any]]]
"""Seconds of each step, and how to read the token ids of all rows back."""


def ours(folder: Path, backend: str) -> Made:
    """Draw the graph, make rows, tokenizer and shards as three jobs would."""
    if backend == "hf":
        sys.modules["gigatoken"] = None  # type: ignore[assignment]
    from workflow.graph import Draw
    from workflow.products import MAKERS
    from workflow.settle import settle
    from workflow.store.build import Resources, build
    from workflow.store.store import Store

    os.chdir(folder)
    store, seconds, last = Store(Path("store")), {}, time.monotonic()
    node = Draw(store).recipe("bench").node("shards_train")
    settle(store, node)
    seconds["draw"] = time.monotonic() - last
    for inner in node.closure():
        last = time.monotonic()
        receipt = build(store, inner.product, inner.address, MAKERS[inner.product], Resources(threads=2))
        seconds[inner.product] = time.monotonic() - last
    from workflow.tokens import read_rows

    folder = store.folder("shards", receipt.key)
    return seconds, lambda: (row.input_ids for row in read_rows(folder))


def peer(folder: Path, backend: str) -> Made:
    """`datasets.load_dataset` and `map`, batched, with two processes."""
    os.environ |= {"HF_DATASETS_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false"}
    from datasets import load_dataset
    from transformers import AutoTokenizer

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(folder / "recipes/qwen")
    stop = [tokenizer.eos_token_id]

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        chats = [
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": HEADER + text}]
            for text in batch["instruction"]
        ]
        texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = tokenizer(batch["output"], add_special_tokens=False)["input_ids"]
        pairs = [(p, a + stop) for p, a in zip(prompts, answers, strict=True) if len(p) + len(a) < 2048]
        return {
            "input_ids": [p + a for p, a in pairs],
            "attention_mask": [[1] * (len(p) + len(a)) for p, a in pairs],
            "labels": [[-100] * len(p) + a for p, a in pairs],
        }

    data = load_dataset("json", data_files=str(folder / "recipes/data.jsonl"), split="train")
    loaded = time.monotonic()
    made = data.map(tokenize, batched=True, num_proc=2, remove_columns=data.column_names)
    seconds = {"load": loaded - began, "map": time.monotonic() - loaded}
    return seconds, lambda: (row["input_ids"] for row in made.with_format("numpy"))


def side(name: str, folder: Path, backend: str, compare: bool) -> None:
    """What the process of one run does; ids are compared by a digest that knows no order."""
    seconds, ids = {"ours": ours, "peer": peer}[name](folder, backend)
    finished = time.monotonic()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu, peak = sum(u.ru_utime + u.ru_stime for u in usage), max(u.ru_maxrss for u in usage) // 1024
    digest = rows = 0
    for row in ids() if compare else ():
        body = hashlib.blake2b(row.astype("int32").tobytes(), digest_size=8).digest()
        digest, rows = (digest + int.from_bytes(body, "big")) % 2**64, rows + 1
    result = {"seconds": seconds, "finished": finished, "cpu": cpu, "peak_mb": peak, "ids": [rows, digest]}
    (folder / "result.json").write_text(json.dumps(result))


def run(name: str, folder: Path, backend: str = "", compare: bool = False) -> dict[str, Any]:
    """One side in a process of its own; `total` is its wall time from start to finish."""
    command = [sys.executable, __file__, "--side", name, "--work", str(folder), "--backend", backend]
    began = time.monotonic()
    done = subprocess.run(command + ["--compare"] * compare, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} {backend}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    found["total"] = found.pop("finished") - began
    print(
        f"  {name:5} {backend:9} {found['total']:8.2f} s, {found['cpu']:8.2f} s of CPU",
        found["seconds"],
        flush=True,
    )
    return found


def fresh(work: Path) -> None:
    """A folder without anything that was built."""
    shutil.rmtree(work / "store", ignore_errors=True)
    shutil.rmtree(work / "cache", ignore_errors=True)


def measure(work: Path, rows: int, pairs: int, cold: list[str]) -> None:
    """Run all pairs and write tokenize.json."""
    from qwen import write_tokenizer

    shutil.rmtree(work, ignore_errors=True)
    recipes = work / "recipes"
    write_tokenizer(recipes / "qwen")
    (recipes / "qwen/config.json").write_text('{"model_type": "qwen2"}')
    (recipes / "p.jinja").write_text(TEMPLATE)
    (recipes / "bench.yaml").write_text(RECIPE)
    write_rows(recipes / "data.jsonl", rows)
    found: dict[str, list[dict[str, Any]]] = {}
    for turn in range(pairs):
        print(f"pair {turn + 1} of {pairs}", flush=True)
        compare = turn == 0
        for backend in cold:
            fresh(work)
            found.setdefault(f"ours {backend} cold", []).append(run("ours", work, backend, compare))
        edit(recipes / "data.jsonl", turn)
        found.setdefault("ours edit", []).append(run("ours", work, "hf", compare))
        found.setdefault("peer", []).append(run("peer", work, compare=compare))
    report(found, rows, recipes / "data.jsonl")


def report(found: dict[str, list[dict[str, Any]]], rows: int, data: Path) -> None:
    """Print medians and ratios, check that both sides made the same tokens, save everything."""
    first = {name: runs[0].pop("ids") for name, runs in found.items()}
    cold = [ids for name, ids in first.items() if name.endswith("cold")]
    assert cold == cold[:1] * len(cold), first
    assert first["ours edit"] == first["peer"], first
    print(f"\n{rows} rows, {data.stat().st_size >> 20} MB; token ids of {first['peer'][0]} rows are equal")
    for name, runs in found.items():
        totals = [run["total"] for run in runs]
        low, middle, high = min(totals), statistics.median(totals), max(totals)
        peak = max(run["peak_mb"] for run in runs)
        print(f"{name:20} {middle:8.2f} s ({low:.2f} to {high:.2f}), largest process {peak} MB")
    names = {
        "ours hf cold": "cold, HF tokenizers",
        "ours gigatoken cold": "cold, gigatoken",
        "ours edit": "edited",
    }
    ratios = {told: ratio(found["peer"], found[name]) for name, told in names.items() if name in found}
    for name, (middle, low, high) in ratios.items():
        print(f"{name:20} {middle:6.1f} times as fast ({low:.1f} to {high:.1f})")
    raw = {"rows": rows, "bytes": data.stat().st_size, "machine": platform.machine(), "cores": os.cpu_count()}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({**raw, "ratios": ratios, "runs": found}, indent=1) + "\n")


def ratio(slow: list[dict[str, Any]], quick: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Median, least and greatest ratio of the pairs' totals."""
    ratios = [a["total"] / b["total"] for a, b in zip(slow, quick, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--cold", nargs="+", choices=BACKENDS, default=list(BACKENDS), help="cold runs of ours"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "bench-tokenize")
    parser.add_argument("--side", default="")
    parser.add_argument("--backend", default="")
    parser.add_argument("--compare", action="store_true")
    chosen = parser.parse_args()
    if chosen.side:
        side(chosen.side, chosen.work, chosen.backend, chosen.compare)
    else:
        measure(chosen.work, chosen.rows, chosen.pairs, chosen.cold)


if __name__ == "__main__":
    main()
