"""What the build itself costs, beside bare Snakemake and DVC on a graph of the same shape.

    python bench/build.py [--recipes 1000] [--pairs 5] [--dvc PATH] [--save bench/results/build.json]

Every figure is the wall time of a whole process. Competitors take turns in one run, so that a busy
machine slows all of them; median and range are printed. The store is filled as if every product had been
built: what is timed is finding out that nothing is to be done. Bare Snakemake has one rule per product
and no content addresses; DVC has one stage per product. Without `--dvc` it is left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import workspace  # noqa: E402
from workflow.publish import publish  # noqa: E402
from workflow.settle import settle  # noqa: E402
from workflow.store.files import write_if_changed  # noqa: E402

CHAIN = ("tokenizer", "model", "rows_train", "rows_test", "shards_train", "shards_test")
OWN = ("adapter", "merged", "predictions", "voted")
"""Products that each recipe has for itself; those of CHAIN are shared by all."""


def main() -> None:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipes", type=int, default=1000, help="recipes of the large graph")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each competitor")
    parser.add_argument("--dvc", type=Path, help="the command dvc, from an environment of its own")
    parser.add_argument("--save", type=Path, help="file for the raw figures (JSON)")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    with tempfile.TemporaryDirectory() as scratch:
        ours, bare = tunemake_folder(Path(scratch, "ours"), options.recipes), Path(scratch, "bare")
        bare_folder(bare, options.recipes)
        results["no-op, one recipe"] = no_op(ours, bare, dvc_folder(Path(scratch, "dvc"), options), options)
        results[f"snakemake -n, {options.recipes} recipes"] = many(ours, bare, options)
        results[f"tunemake plan --all, {options.recipes} recipes"] = plan_all(ours, options)
        results["cache hit, 1 GB"] = cache_hit(Path(scratch, "hit"), options)
        results["second look at a 4 GB data file"] = large_source(Path(scratch, "large"), options)
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(results, indent=1) + "\n")


def tunemake_folder(root: Path, recipes: int) -> workspace.Folder:
    """A user's folder with this many recipes that differ in the rank, all of them built."""
    place = workspace.folder(root)
    for number in range(recipes):
        text = workspace.RECIPE.replace("r: 8", f"r: {number + 1}")
        place.path("recipes", f"{_name(number)}.yaml").write_text(text)
    draw = place.draw()
    for number in range(recipes):
        workspace.pretend(place, _name(number), draw=draw)
    return place


def _name(number: int) -> str:
    return f"r{number:05}"


def bare_folder(root: Path, recipes: int) -> None:
    """The same number of jobs and edges in Snakemake alone: shared products, then a chain per recipe."""
    root.mkdir()
    rules, before = ["rule shared:\n    output: touch('shared/{p}')"], [f"shared/{p}" for p in CHAIN]
    for product in (*OWN, "published"):
        needed = before if isinstance(before, list) else [before]
        rules.append(f"rule {product}:\n    input: {needed!r}\n    output: touch('{product}/{{recipe}}')")
        before = f"{product}/{{recipe}}"  # type: ignore[assignment]
    (root / "Snakefile").write_text("\n".join(rules) + "\n")
    (root / "shared").mkdir()
    for product in CHAIN:
        (root / "shared" / product).touch()
    for product in (*OWN, "published"):
        (root / product).mkdir()
        for number in range(recipes):
            (root / product / _name(number)).touch()


def dvc_folder(root: Path, options: argparse.Namespace) -> Path | None:
    """One recipe's chain as DVC stages, built once."""
    if options.dvc is None:
        return None
    root.mkdir()
    stages, before = {}, []
    for product in CHAIN:
        stages[product] = {"cmd": f"echo {product} > {product}.txt", "outs": [f"{product}.txt"]}
        before.append(f"{product}.txt")
    for product in (*OWN, "published"):
        stages[product] = {
            "cmd": f"echo {product} > {product}.txt",
            "deps": before,
            "outs": [f"{product}.txt"],
        }
        before = [f"{product}.txt"]
    (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    run = [str(options.dvc), "init", "--no-scm", "--quiet"], [str(options.dvc), "repro", "--quiet"]
    for command in run:
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


def no_op(ours: workspace.Folder, bare: Path, dvc: Path | None, options: argparse.Namespace) -> Any:
    """Nothing to do for one recipe."""
    name = _name(0)
    ours.build(f"results/{name}/voted.jsonl", "--cores", "2", "--quiet")
    competitors = {
        "tunemake": lambda: snakemake(ours.root, f"results/{name}/voted.jsonl", "--cores", "2"),
        "bare Snakemake": lambda: snakemake(bare, f"published/{name}", "--cores", "2"),
    }
    if dvc:
        competitors["dvc"] = lambda: process([str(options.dvc), "repro"], dvc)
    found = compare("no-op, one recipe", competitors, options.pairs)
    extra = found["tunemake"]["median"] - found["bare Snakemake"]["median"]
    print(f"  tunemake is {extra:+.2f} s against bare Snakemake (asked: at most +0.25 s)")
    return found


def many(ours: workspace.Folder, bare: Path, options: argparse.Namespace) -> Any:
    """A dry run over all recipes."""
    names = [_name(number) for number in range(options.recipes)]
    published = [f"results/{name}/voted.jsonl" for name in names]
    publish_all(ours, names)
    competitors = {
        "tunemake": lambda: snakemake(ours.root, "-n", *published),
        "bare Snakemake": lambda: snakemake(bare, "-n", *(f"published/{name}" for name in names)),
    }
    found = compare(f"snakemake -n, {options.recipes} recipes", competitors, options.pairs)
    ratio = found["tunemake"]["median"] / found["bare Snakemake"]["median"]
    print(f"  ratio {ratio:.2f} (asked: at most 1.5); {found['tunemake']['peak MiB']:.0f} MiB (at most 300)")
    return found


def publish_all(ours: workspace.Folder, names: list[str]) -> None:
    """Publish the votes of these recipes without a process for each."""
    draw = ours.draw()
    for name in names:
        node, folder = draw.recipe(name).node("voted"), ours.path("results", name)
        settle(ours.store, node)
        write_if_changed(folder / ".addresses/voted.jsonl", f"voted {node.address}\n".encode())
        publish(ours.store, folder, "voted.jsonl", ours.store.stamp("voted", node.address))


def plan_all(ours: workspace.Folder, options: argparse.Namespace) -> Any:
    """The same question without Snakemake."""
    command = [sys.executable, "-m", "workflow", "plan", "--all"]
    return compare(
        f"tunemake plan --all, {options.recipes} recipes",
        {"tunemake": lambda: process(command, ours.root)}, options.pairs,
    )  # fmt: skip


def cache_hit(root: Path, options: argparse.Namespace) -> Any:
    """A job that finds its product of 1 GB made already: the whole process."""
    place = workspace.folder(root)
    # In a process of its own: what one starts is charged with the memory of its parent at that moment.
    making = multiprocessing.get_context("spawn").Process(target=_pretend_large, args=(root,))
    making.start()
    making.join()
    node = place.graph("small").node("merged")
    command = [sys.executable, "-m", "workflow", "merged", "--address", node.address]
    hit = {"tunemake": lambda: process(command, place.root)}
    hit["tunemake"]()  # the digests of a product just made are remembered by its maker
    time.sleep(3)
    hit["tunemake"]()
    return compare("cache hit, 1 GB", hit, options.pairs)


def _pretend_large(root: Path) -> None:
    workspace.pretend(workspace.Folder(root), "small", contents={"merged": "x" * (1 << 30)})


def large_source(root: Path, options: argparse.Namespace) -> Any:
    """Drawing a recipe whose data file was read before and did not change."""
    place = workspace.folder(root)
    with place.path("recipes/data/train.jsonl").open("ab") as file:
        file.truncate(4 << 30)
    time.sleep(3)  # a file that changed this moment is not trusted
    began = time.monotonic()
    command = [sys.executable, "-m", "workflow", "check", "recipes/small.yaml"]
    process(command, place.root)
    first = time.monotonic() - began
    print(f"first look at a 4 GB data file: {first:.2f} s")
    return compare("second look", {"tunemake": lambda: process(command, place.root)}, options.pairs)


def snakemake(folder: Path, *arguments: str) -> float:
    """Peak memory in MiB of one Snakemake run."""
    return process(workspace.command(*arguments), folder)


def process(command: Sequence[str], folder: Path) -> float:
    """Run a command that must succeed; its peak resident memory in MiB."""
    environment = workspace.environment() | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert run.stderr is not None
    said = run.stderr.read()
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"{' '.join(command[:6])} failed:\n{said.decode()[-2000:]}")
    return usage.ru_maxrss / 1024


def compare(title: str, competitors: dict[str, Callable[[], float]], turns: int) -> dict[str, Any]:
    """Time each competitor in turn, `turns` times; print and return median, range and peak memory."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    peak: dict[str, float] = dict.fromkeys(competitors, 0.0)
    for _ in range(turns):
        for name, run in competitors.items():
            began = time.monotonic()
            peak[name] = max(peak[name], run())
            seconds[name].append(time.monotonic() - began)
    print(title)
    found = {}
    for name, values in seconds.items():
        middle = statistics.median(values)
        found[name] = {"median": middle, "seconds": values, "peak MiB": peak[name]}
        print(f"  {name:15} {middle:7.2f} s  ({min(values):.2f} to {max(values):.2f}), {peak[name]:.0f} MiB")
    return found


if __name__ == "__main__":
    main()
