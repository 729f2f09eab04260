"""A user's folder for tests: the real Snakefile, rules and profile, small recipes, Snakemake run in it."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workflow.graph import Draw, Graph
from workflow.node import Node
from workflow.publish import publish
from workflow.settle import FOLDERS, PUBLISHED, may_show, settle
from workflow.store.files import digests_of
from workflow.store.records import Manifest, Receipt, key_of
from workflow.store.store import MANIFEST, Store

ROOT = Path(__file__).parents[1]

FORKS = multiprocessing.get_context("forkserver")
"""Dry runs are forked from a process that has imported Snakemake, which takes longer than they do."""
FORKS.set_forkserver_preload(["snakemake.cli", "workflow.settle", "workflow.show", "workflow.schemas"])

BASE = """\
dataset: {train: {path: data/base.jsonl, format: round1}}
prompt: {template: prompts/tiny.jinja, max_length: 256}
model: {base: {scratch: models/tiny-qwen2}, dtype: float32}
tuning: {method: full}
training: {epochs: 2, learning_rate: 5e-3, batch_size: 16, seed: 3}
"""

RECIPE = """\
dataset:
  train: {path: data/train.jsonl, format: round1}
  test: {path: data/test.jsonl, format: round1}
prompt: {template: prompts/tiny.jinja, max_length: 256}
model: {base: {recipe: small-base}, dtype: float32}
tuning: {method: lora, r: 8, lora_alpha: 32, target_modules: all-linear}
training: {epochs: 1, learning_rate: 3e-3, batch_size: 8, log_steps: 2, seed: 1}
deepspeed: {zero_stage: 2}
sampling: {n: 3, temperature: 1.0, max_tokens: 48, seed: 0}
voting: {answer: {pattern: '([A-D])', match: last}, rule: majority, ties: first}
scoring: {metrics: [accuracy], compare: [base]}
execution: {processes: 1, save_steps: 2}
"""

UNSCORED = {"rows": 1, "scored": 0, "draws": 1, "systems": {}, "tests": {}}
"""A scores.json that holds nothing but is valid."""


@dataclass(frozen=True)
class Folder:
    """A folder with recipes in which builds run."""

    root: Path

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def draw(self) -> Draw:
        return Draw(self.store, self.root / "recipes")

    def graph(self, recipe: str) -> Graph:
        return self.draw().recipe(recipe)

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace `old`, which must be there, once in a file of recipes/."""
        file = self.path("recipes", path)
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def copy(self, to: Path) -> Folder:
        """The same folder elsewhere, times included."""
        shutil.copytree(self.root, to, symlinks=True)
        return Folder(to)

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), cwd=self.root, env=environment(), capture_output=True, text=True, timeout=500
        )

    def build(self, *targets: str) -> str:
        """What a build that must succeed printed."""
        run = self.snakemake(*targets)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr

    def make(self, recipe: str, *names: str) -> None:
        """Run the jobs of these products of the graph, and of what they need, as the rules do."""
        graph = self.graph(recipe)
        for node in (inner for name in names for inner in graph.node(name).closure()):
            if self.store.built(node.product, node.address) is None:
                settle(self.store, node)
                subprocess.run(
                    [sys.executable, "-m", "workflow", node.product, "--address", node.address],
                    cwd=self.root, env=environment(), check=True, capture_output=True,
                )  # fmt: skip

    def planned(self, *targets: str) -> dict[str, int]:
        """Rule -> number of jobs that `snakemake -n` would run."""
        printed = self.root / ".planned.txt"
        process = FORKS.Process(target=_dry_run, args=(self.root, targets, printed, environment()))
        process.start()
        process.join()
        assert process.exitcode == 0, printed.read_text()
        return jobs(printed.read_text())


def _dry_run(root: Path, targets: tuple[str, ...], printed: Path, environment: dict[str, str]) -> None:
    """Run the command line `snakemake -n <targets>` in this fresh process; exits with its status."""
    from snakemake.cli import main

    os.chdir(root)
    os.environ.clear()
    os.environ.update(environment)
    with printed.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, str(root))  # as `python -m snakemake` does
    main(["-n", *targets])


def command(*arguments: str) -> list[str]:
    """Snakemake of this Python."""
    return [sys.executable, "-m", "snakemake", *arguments]


def environment() -> dict[str, str]:
    """This environment without what would change how Snakemake or the store behaves."""
    ours = ("TUNEMAKE_", "SNAKEMAKE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def jobs(printed: str) -> dict[str, int]:
    """The table `Job stats` that Snakemake prints, without its total."""
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)^total", printed, re.M | re.S)
    if not table:
        assert "Nothing to be done" in printed, printed
        return {}
    return {name: int(count) for name, count in map(str.split, table[1].splitlines())}


def folder(root: Path, base: int = 4, train: int = 8, test: int = 4) -> Folder:
    """A new folder at `root` with the recipes small-base and small and this many problems of each kind."""
    for name in ("Snakefile", "rules", "profiles"):
        _copy(ROOT / name, root / name)
    for name in ("models", "prompts"):
        _copy(ROOT / "recipes" / name, root / "recipes" / name)
    _head("tiny-base/train.jsonl", root / "recipes/data/base.jsonl", base)
    _head("tiny-logic/train.jsonl", root / "recipes/data/train.jsonl", train)
    _head("tiny-logic/test.jsonl", root / "recipes/data/test.jsonl", test)
    (root / "recipes/small-base.yaml").write_text(BASE)
    (root / "recipes/small.yaml").write_text(RECIPE)
    return Folder(root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def _head(source: str, target: Path, lines: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (ROOT / "recipes/data" / source).open() as file:
        target.write_text("".join(line for line, _ in zip(file, range(lines), strict=False)))


def pretend(
    place: Folder,
    recipe: str,
    contents: dict[str, str] | None = None,
    leave: tuple[str, ...] = (),
    draw: Draw | None = None,
) -> None:
    """Write every product of a recipe that is not built into the store as if it had been made.

    Args:
        place: The folder of the recipe.
        recipe: Its name.
        contents: Product -> text of its files; default: some text of the product's own.
        leave: Names of the graph that are not written.
        draw: What draws the recipe, where many are drawn.
    """
    products = (draw or place.draw()).recipe(recipe).products
    left = {products[name].address for name in leave}
    for node in {inner.address: inner for top in products.values() for inner in top.closure()}.values():
        if node.address not in left and not place.store.built(node.product, node.address):
            _pretend(place.store, node, (contents or {}).get(node.product))


def _pretend(store: Store, node: Node, text: str | None) -> None:
    found = {role: store.built(inner.product, inner.address) for role, inner in node.inputs.items()}
    key = key_of(node.plan, {role: receipt.manifest.content for role, receipt in found.items() if receipt})
    target = store.folder(node.product, key)
    target.mkdir(parents=True, exist_ok=True)
    names = [file for name, (_, file) in PUBLISHED.items() if file and may_show(name, node.product)]
    for name in names or ["content"]:
        if name in FOLDERS:
            (target / name).mkdir(exist_ok=True)
            name = f"{name}/loss.svg"
        own = json.dumps(UNSCORED) if name == "scores.json" else f"{node.product} {key}\n"
        (target / name).write_text(own if text is None else text)
    (target / MANIFEST).unlink(missing_ok=True)
    manifest = Manifest.model_validate({"files": digests_of(target), "counts": {}})
    (target / MANIFEST).write_bytes(manifest.body)
    store.write_plan(node.product, node.address, node.asked)
    store.write_receipt(Receipt(product=node.product, address=node.address, key=key, manifest=manifest))


def publish_all(place: Folder, recipe: str, names: tuple[str, ...] = tuple(PUBLISHED)) -> None:
    """Publish what a recipe has of `names` (not submissions, which pretended votes lack), as its rules do."""
    products = place.graph(recipe).products
    place.path("results", recipe).mkdir(parents=True, exist_ok=True)
    for name in names:
        node = products.get(PUBLISHED[name][0])
        if node and name != "submission.jsonl":
            stamp = place.store.stamp(node.product, node.address)
            publish(place.store, place.path("results", recipe), name, stamp, recipe)


def record_run(place: Folder, node: Node, **record: object) -> None:
    """Write how long a finished product took, and on what."""
    receipt = place.store.built(node.product, node.address)
    assert receipt
    place.store.run_record(node.product, receipt.key).write_text(json.dumps(record))
