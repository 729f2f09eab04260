"""A million draws voted and scored, beside a plain script that only counts.

    python bench/vote.py [--rows 200000] [--draws 5] [--turns 3] [--threads 2] [--save bench/vote.json]

Rows are questions with four options; each has `draws` answers of some 60 characters, with their token ids as
`predictions.jsonl` has them, and one greedy answer besides. Ours is `make` of the products voted and scores:
files read and validated, votes, submission and maj@k curves written, accuracies with intervals and tests,
texts counted, one line per row written. The script is what people write: json.loads, re.findall, Counter,
and the accuracy of the vote; no interval, no check. Both take turns, each in a process of its own. Memory is
the peak of this process and, for each process that it starts, that of the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # not bench/, whose tokenize.py would shadow the standard library's
ANSWER = {"pattern": r"答案是[:：]\s*\**\(?([A-G])", "match": "last"}
TARGET_SECONDS, TARGET_MB = 10, 1024

PLAIN = r"""
import json, re, sys
from collections import Counter
folder = sys.argv[1]
golds = {}
for line in open(folder + "/rows/rows.jsonl", encoding="utf-8"):
    row = json.loads(line)
    golds[row["id"]] = row["gold"]
right = greedy = 0
with open(folder + "/plain.jsonl", "w", encoding="utf-8") as out:
    for line in open(folder + "/draws/predictions.jsonl", encoding="utf-8"):
        record = json.loads(line)
        found = [re.findall(r"答案是[:：]\s*\**\(?([A-G])", draw["text"]) for draw in record["draws"]]
        votes = Counter(answers[-1] for answers in found if answers)
        answer = votes.most_common(1)[0][0] if votes else None
        right += answer in golds[record["id"]]
        out.write(json.dumps({"id": record["id"], "answer": answer}) + "\n")
for line in open(folder + "/greedy/predictions.jsonl", encoding="utf-8"):
    record = json.loads(line)
    answers = re.findall(r"答案是[:：]\s*\**\(?([A-G])", record["draws"][0]["text"])
    greedy += bool(answers) and answers[-1] in golds[record["id"]]
print(json.dumps({"voted": right / len(golds), "greedy": greedy / len(golds)}))
"""


def main() -> None:
    """Make the files, run both in turns, and print medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--draws", type=int, default=5, help="draws per row")
    parser.add_argument("--turns", type=int, default=3, help="turns of each")
    parser.add_argument("--threads", type=int, default=2, help="processes that ours may use")
    parser.add_argument("--save", type=Path, help="file for the raw figures (JSON)")
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(options.ours, options.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, options.rows, options.draws)
        commands = {
            "tunemake": [sys.executable, __file__, "--ours", scratch, "--threads", str(options.threads)],
            "script": [sys.executable, "-c", PLAIN, scratch],
        }
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
        for _ in range(options.turns):
            for name, command in commands.items():
                runs[name].append(timed(command))
        report(options, folder, runs)


def timed(command: list[str]) -> dict[str, Any]:
    """Wall seconds of a whole process, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    return {"seconds": round(time.perf_counter() - began, 3), **json.loads(done.stdout.splitlines()[-1])}


def ours(folder: Path, threads: int) -> dict[str, Any]:
    """Vote and score with the products' own functions; accuracies, seconds of each, and the peak memory."""
    import shutil

    from workflow.products import scores, voted
    from workflow.recipe.answers import Scoring
    from workflow.recipe.leaf import slice_of
    from workflow.store.build import Job, Resources

    for name in ("voted", "scores"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    vote = {"answer": ANSWER, "members": [], "weights": None, "ties": "first", "seed": None}
    inputs = {"rows": folder / "rows", "voter own": folder / "draws"}
    resources, began, busy = Resources(threads=threads), time.perf_counter(), _cpu_seconds()
    voted.make(Job(vote, inputs, {}, folder / "voted", folder, folder, {}, resources))
    middle = time.perf_counter()
    chosen = slice_of(Scoring(), "scores") | {"answer": ANSWER}
    roles = {name: folder / name for name in ("rows", "draws", "greedy", "voted")}
    scores.make(Job(chosen, roles, {}, folder / "scores", folder, folder, {}, resources))
    ended = time.perf_counter()
    found = json.loads((folder / "scores/scores.json").read_text(encoding="utf-8"))["systems"]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "voted": found["voted"]["accuracy"],
        "greedy": found["greedy"]["accuracy"],
        "voting_seconds": round(middle - began, 3),
        "scoring_seconds": round(ended - middle, 3),
        "cpu_seconds": round(_cpu_seconds() - busy, 3),
        "peak_mb": round((own + threads * largest) / 1024),
    }


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def write(folder: Path, rows: int, draws: int) -> None:
    """Rows and predictions, the same each time."""
    chance = random.Random(0)
    for name in ("rows", "draws", "greedy"):
        (folder / name).mkdir()
    with (
        (folder / "rows/rows.jsonl").open("w", encoding="utf-8") as asked,
        (folder / "draws/predictions.jsonl").open("w", encoding="utf-8") as drawn,
        (folder / "greedy/predictions.jsonl").open("w", encoding="utf-8") as greedy,
    ):
        for number in range(rows):
            gold = chance.choice("ABCD")
            asked.write(_line(row(number, gold)))
            drawn.write(_line(answered(number, gold, draws, chance)))
            greedy.write(_line(answered(number, gold, 1, chance)))


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n"


def row(number: int, gold: str) -> dict[str, Any]:
    """A row as the product rows writes it."""
    problem = (
        f"某个问题{number}：甲比乙高，乙比丙高，丙比丁高。请问谁最高？谁最矮？请按照上面的条件逐步推理。"
    )
    options = ["甲", "乙", "丙", "丁"]
    return {
        "gold": [gold], "group": None, "id": f"row-{number:07d}", "index": 0, "rendered": None, "target": {},
        "prompt": {"problem": problem, "question": "选择题：谁最高？", "options": options}, "turns": [],
    }  # fmt: skip


def answered(number: int, gold: str, draws: int, chance: random.Random) -> dict[str, Any]:
    """A prediction as the product predictions writes it: half of them right, others by chance."""
    made = []
    for _ in range(draws):
        said = gold if chance.random() < 0.5 else chance.choice("ABCDX")
        text = f"由题意，甲比乙高{chance.randrange(99)}厘米，因此甲最高，丁最矮。"
        text += f"逐个检查选项后可以确定：答案是：{said}"
        ids = [chance.randrange(150_000) for _ in range(32)]
        ended = "stop" if chance.random() < 0.95 else "length"
        made.append({"text": text, "token_ids": ids, "tokens": 32, "finish_reason": ended, "logprob": None})
    return {"id": f"row-{number:07d}", "prompt_tokens": 90, "draws": made}


def report(options: argparse.Namespace, folder: Path, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Print what was found, and whether the target is met; save it where asked."""
    medians = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    for name in ("voted", "greedy"):
        assert abs(runs["tunemake"][0][name] - runs["script"][0][name]) < 0.002, name  # ties apart
    peak = max(run["peak_mb"] for run in runs["tunemake"])
    size = sum((folder / name).stat().st_size for name in ("draws/predictions.jsonl", "rows/rows.jsonl"))
    print(
        f"{options.rows} rows of {options.draws} draws and a greedy answer, {size >> 20} MB of draws and rows"
    )
    for name, found in runs.items():
        seconds = [run["seconds"] for run in found]
        print(f"{name:9} {medians[name]:6.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"ratio     {medians['script'] / medians['tunemake']:6.2f}  (script / tunemake); peak {peak} MB")
    met = medians["tunemake"] <= TARGET_SECONDS and peak <= TARGET_MB
    print(f"target: {TARGET_SECONDS} s and {TARGET_MB} MB: {'met' if met else 'missed'}")
    if options.save:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        found = {"rows": options.rows, "draws": options.draws, "machine": machine, "runs": runs}
        options.save.write_text(json.dumps({**found, "median_seconds": medians}, indent=2) + "\n")


if __name__ == "__main__":
    main()
