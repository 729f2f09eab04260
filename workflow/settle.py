"""What Snakemake asks while it draws its graph: which stamps a file needs, and how a job may run.

Only the main process reads recipes. Jobs on other machines see plans alone. Before Snakemake looks, the
stamps are brought in line with the truth: a stamp stands exactly where a receipt with its folder does.
A product that is built is shown without inputs, so Snakemake never weighs times against each other and
its graph holds what is to be made and what that is made from, however many products there are.
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
from workflow.freshness import not_after, shows, weigh
from workflow.graph import Draw, Graph
from workflow.node import Node
from workflow.problems import problems_of
from workflow.store.build import stamp
from workflow.store.files import write_if_changed
from workflow.store.leases import Ref, keep
from workflow.store.records import Receipt, key_from
from workflow.store.roots import write_root
from workflow.store.store import Store, read_manifest

RESULTS = Path("results")

PUBLISHED = {
    "adapter": ("adapter", ""),
    "merged": ("merged", ""),
    "overlap.json": ("overlap", "overlap.json"),
    "predictions.jsonl": ("predictions", "predictions.jsonl"),
    "voted.jsonl": ("voted", "voted.jsonl"),
    "submission.jsonl": ("voted", "submission.jsonl"),
    "scores.json": ("scores", "scores.json"),
    "items.jsonl": ("scores", "items.jsonl"),
    "report.html": ("report", "report.html"),
    "figures": ("report", "figures"),
    "experiment.json": ("experiment", "experiment.json"),
    "review.csv": ("review", "review.csv"),
    "review.html": ("review", "review.html"),
    "served.json": ("served", "served.json"),
    "chat_template.jinja": ("served", "chat_template.jinja"),
}
"""Name under results/<recipe>/ -> the product and what of its folder; "" is the folder itself."""

FOLDERS = ("adapter", "merged", "figures")
"""Those of them that are folders, and published as links."""


def may_show(name: str, product: str) -> bool:
    """Whether a published file of this name can be of this product; an experiment's report is its own."""
    own = PUBLISHED.get(name, ("",))[0]
    return product == own or (own, product) == ("report", "experiment")


DEMO = "tiny-logic"

_asked: dict[str, None] = {}


@cache
def draw() -> Draw:
    """The recipes of this folder, each drawn once per process."""
    return Draw(Store.here())


Needs = dict[str, dict[str, Node]]
"""Address -> the inputs (by role) that a job of it would need: none if it is built."""


@cache
def _settled() -> Needs:
    """What was settled in this process."""
    return {}


def graph(recipe: str) -> Graph:
    """The graph of a recipe."""
    return draw().recipe(recipe)


def published_from(wildcards: Any) -> dict[str, str]:
    """Inputs of a published file: the stamp of its product, and a note of the address it is to show."""
    store = Store.here()
    name = wildcards.name
    _asked[wildcards.recipe] = None
    note = RESULTS / wildcards.recipe / ".addresses" / name
    try:
        node = graph(wildcards.recipe).node(PUBLISHED[name][0])
        _claim(wildcards.recipe)
        settle(store, node, _settled())
        write_if_changed(note, f"{node.product} {node.address}\n".encode())
        _weigh(store, node, RESULTS / wildcards.recipe / name, note)
        _root(wildcards.recipe)
    except BuildError as error:
        _stop(error)
    return {"stamp": str(store.stamp(node.product, node.address)), "address": str(note)}


def _weigh(store: Store, node: Node, target: Path, note: Path) -> None:
    """Decide here whether a product is published again."""
    receipt = store.built(node.product, node.address)
    fresh = receipt is not None and shows(target, receipt)
    weigh(target, store.stamp(node.product, node.address), note, fresh)


@cache
def _claim(recipe: str) -> list[Ref]:
    """Keep `tunemake gc` from all that a recipe needs for as long as this build runs."""
    refs = [(node.product, node.address) for node in graph(recipe).nodes.values()]
    keep(Store.here(), refs)  # before any receipt is looked at
    return refs


@cache
def _root(recipe: str) -> None:
    """Say in the store what this recipe asked for, once its first file is known to be buildable."""
    write_root(Store.here(), RESULTS / recipe, recipe, planned=_claim(recipe))


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
        needed: Any = _settled().get(wildcards.address)
        if needed is None:
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


def settle(store: Store, node: Node, settled: Needs | None = None) -> None:
    """Write the plans of `node` and of all it needs, and set the stamps right.

    Args:
        store: The store.
        node: What is wanted.
        settled: What needs no second look; what this call settles is added.

    Raises:
        BuildError: Something that is not built yet cannot be: a source is missing or a model unpinned.
    """
    settled = {} if settled is None else settled
    problems: list[str] = []
    for inner in node.closure(settled):
        settled[inner.address] = {}
        built = _set_stamp(store, inner)
        if not built or not store.file(inner.product, inner.address, ".plan.json").exists():
            store.write_plan(inner.product, inner.address, inner.asked)
        if not built:
            settled[inner.address] = inner.inputs
            problems += problems_of(inner)
            sources = {role: os.path.abspath(path) for role, path in inner.sources.items()}
            where = {"sources": sources, "execution": inner.execution}
            store.write_where(inner.product, inner.address, where)
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
    not_after(path, time_ns())  # a clock was set back: what is made from it must not look older
    return True


def linked(store: Store, node: Node) -> Receipt | None:
    """Early cut-off: the receipt of a node whose inputs are built and turned out to be known ones.

    Its folder is there, made for another address; only the receipt is written, and no job is queued.
    """
    key = next_key(store, node)
    if key is None or not store.has(node.product, key):
        return None
    manifest = read_manifest(store.folder(node.product, key))
    receipt = Receipt(product=node.product, address=node.address, key=key, manifest=manifest)
    store.write_receipt(receipt)
    return receipt


def default_recipes() -> list[str]:
    """What bare `snakemake` builds: the demo, or in a folder without it every recipe there is."""
    names = sorted(path.stem for path in Path("recipes").glob("*.yaml"))
    return [DEMO] if DEMO in names else names


def default_targets(wildcards: Any) -> list[str]:
    """The last files of the default recipes."""
    try:
        return [f"results/{name}/{file}" for name in default_recipes() for file in last_files(graph(name))]
    except BuildError as error:
        _stop(error)


NOTHING = "nothing to build: the recipe has neither tuning nor sampling"


def last_files(graph: Graph) -> list[str]:
    """Names of the last files that a recipe has: scores and report, or the model if it answers nothing."""
    answers = (("voted.jsonl", "scores.json", "report.html", "figures", "review.csv"), ("predictions.jsonl",))
    for names in (*answers, ("merged",), ("adapter",)):
        there = [name for name in names if PUBLISHED[name][0] in graph.products]
        if there:
            return there
    return []


def next_key(store: Store, node: Node, known: Callable[[Node], str | None] | None = None) -> str | None:
    """The key of a node whose inputs are there; else None: nothing of it can exist.

    Args:
        store: Where the inputs are.
        node: What is asked for.
        known: The key of an input, or None; default: that of its receipt.

    Raises:
        BuildError: A record of an input is damaged.
    """

    def content(role: str) -> str | None:
        inner = node.inputs[role]
        key = known(inner) if known else _built_key(store, inner)
        return read_manifest(store.folder(inner.product, key)).content if key else None

    return key_from(node.plan, content)


def _built_key(store: Store, node: Node) -> str | None:
    receipt = store.built(node.product, node.address)
    return receipt.key if receipt else None
