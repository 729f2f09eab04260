"""Inputs of a report, as small as they tell something."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tiny_predictions import manifest

from workflow.products.report import make
from workflow.store.build import Job
from workflow.tokens import TokenRow, digest_of_row, shard_bytes

HOSTILE = "</script><!--<script>alert('x')</script><img src=http://evil.example/x onerror=y>&amp;\u202e"
RECIPE: dict[str, Any] = {
    "voting": {
        "answer": {"pattern": "answer: ([A-D])", "match": "last"},
        "ties": "first",
        "rule": "majority",
    },
    "model": {"base": "Org/Model-7B", "revision": "a" * 40, "dtype": "bfloat16"},
    "dataset": {"train": {"path": "</pre><script>", "format": "round1"}},
    "prompt": {"template": "p.jinja", "max_length": 120, "overflow": "drop"},
    "tuning": {"method": "lora", "r": 8, "lora_alpha": 32},
    "sampling": {"n": 5, "temperature": 0.7},
}
ROWS, GOLD = 40, "ABCD"
OVERLAP = {"exact_test_rows": 3, "normalised_test_rows": 11, "similar_test_rows": 7, "longest_match": 50}
OVERLAP |= {"contaminated_test_rows": 12, "test_rows": 1300}
FACTS = {
    "steps": 1000, "parameters": 987654, "trained_parameters": 4321, "validation_rows": 50,
    "weights_of_step": 900,
}  # fmt: skip


def shard(lengths: list[int]) -> bytes:
    none = np.zeros(101 + 20, np.int32)
    rows = [TokenRow(f"{i}", none[:n], none[:n].astype(np.uint8), n) for i, n in enumerate(lengths)]
    return shard_bytes(rows, [digest_of_row(row.id.encode()) for row in rows])


def folder(root: Path, product: str, files: dict[str, Any], counts: dict[str, Any]) -> Path:
    """A product's folder: bytes stay, lists become JSON lines, other values JSON."""
    path = root / hashlib.blake2b(product.encode(), digest_size=16).hexdigest()
    path.mkdir(parents=True)
    for name, content in files.items():
        lines = content if isinstance(content, list) else [content]
        text = content if isinstance(content, bytes) else "".join(json.dumps(x) + "\n" for x in lines)
        (path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return manifest(path, counts)


def rows() -> list[dict[str, Any]]:
    prompts = [
        {"problem": f"Problem {i} {HOSTILE[:-1]}", "options": ["1", "2", "3", "<4>"]} for i in range(ROWS)
    ]
    return [
        {"id": f"r{i:03d}#<b>", "prompt": prompt, "gold": [GOLD[i % 4]]} for i, prompt in enumerate(prompts)
    ]


def answered(right: list[bool]) -> list[dict[str, Any]]:
    lines = []
    for i, row in enumerate(rows()):
        texts = [f"{HOSTILE[:-1]} answer: {GOLD[(i + (not good)) % 4]}" for good in right]
        reason = "stop" if i else "length"
        lines.append({"id": row["id"], "draws": [{"text": t, "finish_reason": reason} for t in texts]})
    return lines


def mixed(one: list[dict[str, Any]], other: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    return [b if i % every == 0 else a for i, (a, b) in enumerate(zip(one, other, strict=True))]


def voted(predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = []
    for row, line in zip(rows(), predictions, strict=True):
        votes = Counter(draw["text"][-1] for draw in line["draws"])
        answer, most = max(votes.items(), key=lambda item: (item[1], item[0]))
        fields = {"id": row["id"], "gold": row["gold"], "answer": answer, "correct": answer in row["gold"]}
        lines.append({**fields, "votes": votes, "abstentions": 0, "agreement": most / 5, "tie": False})
    return lines


def scores() -> dict[str, Any]:
    accuracies = {"base": 0.321, "greedy": 0.654, "single": 0.611, "draws": 0.605, "voted": 0.703}
    rates = {"n": 1234, "parse_rate": 0.987, "length_rate": 0.013}
    systems: dict[str, Any] = {
        name: {"accuracy": a, "low": a - 0.0504, "high": a + 0.0413, **rates}
        for name, a in accuracies.items()
    }
    none = {"accuracy": 0.3, "parse_rate": None, "length_rate": None}
    tests = {
        "greedy_vs_base": {"better": 500, "worse": 89, "p": 1e-20, "difference": 0.333},
        "voted_vs_single": {"better": 120, "worse": 99, "p": 0.2, "difference": 0.092},
    }
    tests = {name: {**test, "low": 0, "high": 0.4, "method": "mcnemar"} for name, test in tests.items()}
    found = {"rows": 1300, "scored": 1234, "draws": 5, "majority_answer": "B", "tests": tests}
    wrong = {"texts": 40, "empty": 1, "cut": 2, "loops": 3, "abstained": None}
    model = {"loss": 1.25, "low": 1.125, "high": 1.5, "perplexity": 3.49}
    likely = {"rows": 40, "problems": 40, "tokens": 999, "systems": {"greedy": model}, "tests": {}}
    found |= {"likelihood": likely}
    found |= {"curves": curves(), "texts": {"base": wrong}}
    return {**found, "systems": {**systems, "majority_class": {**systems["base"], **none}}}


def curves() -> dict[str, Any]:
    points = [{"k": k, "accuracy": 0.6 + k / 50, "low": 0.5, "high": 0.8} for k in (1, 3, 5)]
    voter = {"draws": 5, "weight": None, "accuracy": 0.6, "gain": 0.099, "low": 0.01, "high": 0.2}
    voters = [{**voter, "name": "own"}, {**voter, "name": f"v-{HOSTILE}"}]
    about = {"rows": 1234, "problems": 1234, "draws": 5, "method": "exact", "subsets": None, "agreement": 0.9}
    return {**about, "points": points, "voters": voters}


def loss() -> list[dict[str, Any]]:
    steps = [{"step": s, "epoch": s / 500, "loss": 2 / (1 + s / 100) + 0.25} for s in range(1, 1001)]
    rates = [{**line, "learning_rate": 1e-4 * (1 - line["step"] / 1000)} for line in steps]
    for line in rates[99::100]:
        line |= {"eval_loss": line["loss"] + 0.1, "grad_norm": 1.5}
    return [*rates, {"step": 1001, "loss": float("nan"), "epoch": 2.0}]


def inputs(root: Path) -> dict[str, Path]:
    base, greedy = answered([False]), mixed(answered([True]), answered([False]), 3)
    draws = mixed(answered([True] * 5), answered([False, True, True, True, False]), 4)
    draws = mixed(draws, answered([False] * 5), 5)
    lengths = [20 + i * 37 % 101 for i in range(500)]
    limits = {"dropped": 17, "truncated": 0, "cut_tokens": 0, "over_limit": 0, "lost_answers": 17}
    shards = {"rows": 500, "tokens": 34985, "trained_tokens": 7654, "longest": 120, "duplicates": 2, **limits}
    made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "rows_train": ({"rows.jsonl": []}, {"rows": 517, "bad_rows": 1, "bad": [f"line 3: {HOSTILE}"]}),
        "rows_test": ({"rows.jsonl": rows()}, {"rows": 1300, "bad_rows": 0, "bad": []}),
        "overlap": ({"overlap.json": {}}, OVERLAP),
        "shards_train": ({"shard-000000.safetensors": shard(lengths)}, shards),
        "shards_test": (
            {"shard-000000.safetensors": shard(lengths[:40])},
            {**shards, "rows": 40, "over_limit": 6, "tokens": 2801},
        ),
        "adapter": ({"loss.jsonl": loss(), "training.json": FACTS}, {"steps": 1000}),
        "merged": ({"config.json": {}}, {"tensors": 201}),
        "base": ({"predictions.jsonl": base}, {"rows": ROWS}),
        "greedy": ({"predictions.jsonl": greedy}, {"rows": ROWS}),
        "predictions": ({"predictions.jsonl": draws}, {"rows": ROWS, "draws": 5 * ROWS}),
        "voted": ({"voted.jsonl": voted(draws)}, {"rows": ROWS}),
        "scores": ({"scores.json": scores()}, {"rows": 1300}),
    }
    return {role: folder(root, role, *parts) for role, parts in made.items()}


def job(root: Path, found: dict[str, Path], recipe: dict[str, Any] = RECIPE, runs: bool = True) -> Job:
    fixed = {"host": f"h-{HOSTILE}", "threads": 2, "gpus": 1, "peak_rss_bytes": 3 << 30}
    records = {role: root / f"{role}.run.json" for role in found if runs}
    for i, path in enumerate(records.values()):
        versions = {"torch": "2.13.0", "peft": f"0.2{i // 6}"}
        path.write_text(json.dumps({**fixed, "seconds": 61.0 * i, "versions": versions}))
    (root / "out").mkdir(exist_ok=True, parents=True)
    return Job(
        {"recipe": recipe}, found, {}, root / "out", root / "work", root / "pieces", run_records=records
    )


def page(job: Job) -> str:
    make(job)
    return (job.out / "report.html").read_text(encoding="utf-8")
