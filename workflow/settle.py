"""What Snakemake asks while it draws its graph: which stamps a file needs, and how a job may run.

Only the main process reads recipes. Jobs on other machines see plans alone. Before Snakemake looks, the
stamps are brought in line with the truth: a stamp stands exactly where a receipt with its folder does,
and is never older than the stamps of its inputs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import time_ns
from typing import Any, NoReturn

from workflow.devices import visible_gpus
from workflow.errors import BuildError
from workflow.graph import Draw, Graph, Node
from workflow.recipe.training import UNPINNED
from workflow.store.build import stamp
from workflow.store.files import remove_tree, write_if_changed
from workflow.store.locks import held
from workflow.store.records import Receipt, key_of
from workflow.store.store import MANIFEST, Store, read_manifest

RESULTS = Path("results")

PUBLISHED = {
    "adapter": ("adapter", ""),
    "merged": ("merged", ""),
    "overlap.json": ("overlap", "overlap.json"),
    "predictions.jsonl": ("predictions", "predictions.jsonl"),
    "voted.jsonl": ("voted", "voted.jsonl"),
    "submission.jsonl": ("voted", "submission.jsonl"),
    "scores.json": ("scores", "scores.json"),
    "report.html": ("report", "report.html"),
}
"""Name under results/<recipe>/ -> the product and the file in its folder; "" is the folder itself."""

DEMO = "tiny-logic"

_asked: dict[str, None] = {}


@cache
def draw() -> Draw:
    """The recipes of this folder, each drawn once per process."""
    return Draw(Store.here())


@cache
def _settled() -> dict[str, Node]:
    """Address -> node of what was settled in this process."""
    return {}


def graph(recipe: str) -> Graph:
    """The graph of a recipe."""
    return draw().recipe(recipe)


def published_from(wildcards: Any) -> dict[str, str]:
    """Inputs of a published file: the stamp of its product, and a note of the address it is to show.

    The note is rewritten only when the address changes, so that an edit or a revert publishes again even
    where Snakemake has lost its own memory.
    """
    store = Store.here()
    name = wildcards.name
    _asked[wildcards.recipe] = None
    try:
        node = graph(wildcards.recipe).node(PUBLISHED[name][0])
        settle(store, node, _settled())
    except BuildError as error:
        _stop(error)
    note = RESULTS / wildcards.recipe / ".addresses" / name
    write_if_changed(note, f"{node.product} {node.address}\n".encode())
    if _time(note) > time_ns():
        _set_time(note, time_ns())
    return {"stamp": str(store.stamp(node.product, node.address)), "address": str(note)}


def drawn() -> list[str]:
    """Recipes whose files this build was asked for, in the order of asking."""
    return list(_asked)


def _stop(error: BuildError) -> NoReturn:
    """Print one clear message instead of Snakemake's frame around an exception, and end."""
    print(f"\nError: {error}", file=sys.stderr)
    raise SystemExit(2)


def inputs_of(product: str) -> Callable[[Any], dict[str, str]]:
    """Input function of a product's rule: role -> stamp of the input, from the plan alone."""

    def inputs(wildcards: Any) -> dict[str, str]:
        store = Store.here()
        if node := _settled().get(wildcards.address):
            needed: Any = node.inputs
        else:
            try:
                needed = store.plan(product, wildcards.address).inputs
            except BuildError as error:
                _stop(error)
        return {role: str(store.stamp(ref.product, ref.address)) for role, ref in needed.items()}

    return inputs


def gpus_for(product: str) -> Callable[[Any], int]:
    """Resource function: GPUs that a job wants; 0 on a machine without any."""

    def gpus(wildcards: Any) -> int:
        machine = len(visible_gpus())
        if product != "adapter":
            return min(1, machine)
        execution = Store.here().where(product, wildcards.address).get("execution", {})
        return (execution.get("processes") or machine) if machine else 0

    return gpus


def settle(store: Store, node: Node, settled: dict[str, Node] | None = None) -> None:
    """Write the plans of `node` and of all it needs, and set the stamps right.

    Args:
        store: The store.
        node: What is wanted.
        settled: Address -> node of what needs no second look; those of this call are added.

    Raises:
        BuildError: Something that is not built yet cannot be: a source is missing or a model unpinned.
    """
    settled = {} if settled is None else settled
    problems: list[str] = []
    for inner in node.closure(settled):
        store.write_plan(inner.product, inner.address, inner.asked)
        sources = {role: os.path.abspath(path) for role, path in inner.sources.items()}
        where = {"sources": sources, "execution": inner.execution}
        store.write_where(inner.product, inner.address, where)
        if not _set_stamp(store, inner):
            problems += _problems(inner)
        settled[inner.address] = inner
    if problems:
        raise BuildError("\n".join(dict.fromkeys(problems)))


def _set_stamp(store: Store, node: Node) -> bool:
    """Make the stamp agree with the receipt; whether the product is built."""
    path = store.stamp(node.product, node.address)
    receipt = store.built(node.product, node.address) or linked(store, node)
    if receipt is None:
        path.unlink(missing_ok=True)
        return False
    if not path.exists():
        stamp(store, receipt)
        _set_time(path, _time(store.file(node.product, node.address, ".json")))
    inputs = [store.stamp(inner.product, inner.address) for inner in node.inputs.values()]
    newest = max(map(_time, inputs), default=0)
    time = max(min(_time(path), time_ns()), newest)  # of the future: a clock was set back
    if time != _time(path):
        _set_time(path, time)
    return True


def linked(store: Store, node: Node) -> Receipt | None:
    """Early cut-off: the receipt of a node whose inputs are built and turned out to be known ones.

    Its folder is there, made for another address; only the receipt is written, and no job is queued.
    """
    key = _key(store, node)
    folder = store.folder(node.product, key) if key else None
    if key is None or folder is None or not (folder / MANIFEST).is_file():
        return None
    receipt = Receipt(product=node.product, address=node.address, key=key, manifest=read_manifest(folder))
    store.write_receipt(receipt)
    return receipt


def _time(path: Path) -> int:
    """The mtime in ns; 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _set_time(path: Path, time: int) -> None:
    os.utime(path, ns=(time, time))


def _problems(node: Node) -> list[str]:
    found = [
        f"{path}: no such file; put the file with SHA-256 {node.digests[role]} there"
        for role, path in node.sources.items()
        if not path.is_file()
    ]
    if node.slice.get("revision") == UNPINNED:
        found.append(
            f"model.revision of {node.slice['hub']} is unpinned: run `tunemake lock recipes/<recipe>.yaml`, "
            "or write the commit there"
        )
    return found


def default_targets(wildcards: Any) -> list[str]:
    """What bare `snakemake` builds: the demo, or in a folder without it every recipe there is."""
    names = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    try:
        return [path for name in ([DEMO] if DEMO in names else names) for path in _most(name)]
    except BuildError as error:
        _stop(error)


def _most(recipe: str) -> list[str]:
    """The last files that a recipe has: scores and report, or the model if it answers nothing."""
    for names in (("voted.jsonl", "scores.json", "report.html"), ("predictions.jsonl",), ("merged",)):
        there = [name for name in names if PUBLISHED[name][0] in graph(recipe).products]
        if there:
            return [f"results/{recipe}/{name}" for name in there]
    return []


def forget(recipe: str, product: str) -> str:
    """Drop a product of a recipe, finished or half made, so that the next build makes it again.

    `product` is a name of the graph or of a published file. What is made from it is cut off by its
    content: products behind it are made again only if the new one differs.

    Returns:
        What was removed, one line each.

    Raises:
        BuildError: No such recipe or product.
    """
    store = Store.here()
    node = graph(recipe).node(PUBLISHED.get(product, (product,))[0])
    receipt = store.file(node.product, node.address, ".json")
    known = store.receipt(node.product, node.address)
    key = known.key if known else _key(store, node)
    if key is None:
        return f"{recipe}: {product} is not built, there is nothing to forget"
    with held(store.root / node.product / f"{key}.lock", f"{node.product} {node.address[:8]}"):
        doomed = [receipt, store.stamp(node.product, node.address), store.folder(node.product, key)]
        there = [path for path in [*doomed, store.work(key)] if path.exists()]
        for path in there:  # the receipt first: a killed `forget` leaves nothing that looks built
            remove_tree(path)
    removed = [f"removed {path}" for path in there]
    return "\n".join(removed) or f"{recipe}: {product} is not built, there is nothing to forget"


def _key(store: Store, node: Node) -> str | None:
    """The key of a node whose inputs are built; else None: nothing of it can exist."""
    contents: dict[str, str] = {}
    for role, inner in node.inputs.items():
        receipt = store.built(inner.product, inner.address)
        if receipt is None:
            return None
        contents[role] = read_manifest(store.folder(inner.product, receipt.key)).content
    return key_of(node.plan, contents)
