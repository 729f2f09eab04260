"""Makers of pure Python in place of those that need minutes, for tests that build hundreds of times.

Training, merging and predicting keep what is theirs in the design: durable work under the job's own key,
whole at every moment, from which a killed job goes on; results that depend on nothing but what goes in.
All other products are made by their own code.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workspace import Folder, folder

from workflow import products
from workflow.card import write_adapter_card
from workflow.errors import BuildError
from workflow.settle import settle
from workflow.store.address import canonical
from workflow.store.build import Job, Resources, build
from workflow.store.files import write_atomic
from workflow.store.store import Store, read_manifest
from workflow.tokens import read_rows

STEPS = 3


def content(job: Job, *roles: str) -> str:
    """What decides a stand-in's result: its slice and the contents of its inputs."""
    found = {role: read_manifest(job.inputs[role]).content for role in roles}
    return hashlib.sha256(canonical({"slice": job.slice, **found})).hexdigest()


def adapter(job: Job) -> dict[str, Any]:
    """Train: each step hashes the last one's state, and leaves a checkpoint."""
    state, first = content(job, "shards", "model"), 1
    for step in range(STEPS, 0, -1):
        if (checkpoint := job.work / f"checkpoint-{step}").exists():
            state, first = checkpoint.read_text(), step + 1
            break
    for step in range(first, STEPS + 1):
        state = hashlib.sha256(state.encode()).hexdigest()
        write_atomic(job.work / f"checkpoint-{step}", state.encode())
    full = job.slice["tuning"]["method"] == "full"
    write_weights(job.out / ("model.safetensors" if full else "adapter_model.safetensors"), state)
    if full:
        copy_companions(job.inputs["model"], job.out)
    (job.out / "loss.jsonl").write_text('{"epoch":1,"learning_rate":0.1,"loss":2.5,"step":1,"tokens":9}\n')
    (job.out / "training.json").write_text(json.dumps({"steps": STEPS}) + "\n")
    write_adapter_card(job)
    return {"steps": STEPS}


def merged(job: Job) -> dict[str, Any]:
    """Merge; the whole model of full fine-tuning is linked by the real code."""
    if job.slice["method"] == "full":
        return REAL["merged"](job)
    write_weights(job.out / "model.safetensors", content(job, "adapter", "model"))
    copy_companions(job.inputs["model"], job.out)
    return {"files": len(list(job.out.iterdir()))}


def predictions(job: Job) -> dict[str, Any]:
    """Answer each row by its hash; finished rows are kept in a file that only grows."""
    records, draws = job.work / "records.jsonl", job.slice["sampling"]["n"]
    known = content(job, "shards", "model")
    finished = _recovered(records)
    ids = [row.id for row in read_rows(job.inputs["shards"])]
    with records.open("ab", buffering=0) as file:
        for row in ids:
            if row not in finished:
                finished[row] = {"id": row, "prompt_tokens": 1, "draws": _draws(known + row, draws)}
                file.write(canonical(finished[row]) + b"\n")
        os.fsync(file.fileno())
    with (job.out / "predictions.jsonl").open("wb") as file:
        file.writelines(canonical(finished[row]) + b"\n" for row in ids)
    return {"rows": len(ids), "draws": len(ids) * draws}


def _recovered(path: Path) -> dict[str, Any]:
    """Finished rows; a torn last line is cut off."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < len(lines):
        os.truncate(path, sum(map(len, whole)))
    return {record["id"]: record for record in map(json.loads, whole)}


def _draws(seed: str, number: int) -> list[dict[str, Any]]:
    letters = ["ABCD"[hashlib.sha256(f"{seed}{n}".encode()).digest()[0] % 4] for n in range(number)]
    return [{"text": f"答案：{a}", "tokens": 1, "token_ids": [7], "finish_reason": "stop"} for a in letters]


def write_weights(path: Path, seed: str) -> None:
    """A safetensors file with one tensor that is known by `seed`."""
    from safetensors.numpy import save_file

    values = np.frombuffer(hashlib.sha256(seed.encode()).digest(), dtype=np.float16).reshape(4, 4)
    save_file({"weight": np.nan_to_num(values)}, path)


def copy_companions(model: Path, out: Path) -> None:
    """Copy what lies beside a model's weights."""
    for path in model.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("manifest.json", "training.json"):
            shutil.copyfile(path, out / path.name)


REAL = dict(products.MAKERS)
STAND_INS = {**REAL, "adapter": adapter, "merged": merged, "predictions": predictions}


def counted(product: str) -> Callable[[Job], dict[str, Any]]:
    """The stand-in of a product, which notes in the folder's `made.log` that it ran."""

    def make(job: Job) -> dict[str, Any]:
        log = os.environ.get("MADE_LOG")
        if log:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, f"{product} {job.out.name.removesuffix('.tmp')}\n".encode())
            os.close(descriptor)
        return STAND_INS[product](job)

    return make


def tunemake(arguments: list[str]) -> int:
    """The command line, with stand-ins."""
    from workflow.cli import main

    products.MAKERS = {product: counted(product) for product in REAL}
    return main(arguments)


def snakemake(arguments: list[str]) -> int:
    """Real Snakemake; its jobs find `tunemake` in the folder given first."""
    from snakemake.cli import main

    sys.executable = os.path.join(arguments[0], "python")
    sys.path.insert(0, os.getcwd())  # as `python -m snakemake` does
    main(arguments[1:])
    return 0


def racer(arguments: list[str]) -> int:
    """Build products, named `<product>/<address>`, in turn, as soon as the file named first is there."""
    gate, *wanted = arguments
    while not os.path.exists(gate):
        time.sleep(0.001)
    for product, _, address in (name.partition("/") for name in wanted):
        build(Store.here(), product, address, counted(product), Resources())
    return 0


def remake(arguments: list[str]) -> int:
    """Make a recipe, looking at every product, as long as refusals say what to do; do what they say."""
    place = Folder(Path.cwd())
    for _ in range(9):
        try:
            make_all(place, arguments[0], again=True)
        except BuildError as error:
            print(f"Error: {error}")
            if path := re.match(r"(\S+): .*\bdelete it\b", str(error)):
                Path(path[1]).unlink(missing_ok=True)
        else:
            return 0
    return 1


def make_all(place: Folder, recipe: str, again: bool = False) -> None:
    """Make all products of a recipe here and now, without Snakemake; `again`: also those that are built."""
    for top in place.graph(recipe).products.values():
        settle(place.store, top)
        for node in top.closure():
            if again or not place.store.built(node.product, node.address):
                build(place.store, node.product, node.address, STAND_INS[node.product], Resources())


PROGRAMS = {"tunemake": tunemake, "snakemake": snakemake, "racer": racer, "remake": remake}


def warm() -> None:
    """Import and prepare what the processes will need, by making everything once."""
    for name in ("snakemake.cli", "workflow.cli", "workflow.publish", "workflow.show"):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as root:
        make_all(folder(Path(root)), "small")
    gc.collect()
    gc.freeze()
