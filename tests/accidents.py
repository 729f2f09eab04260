"""One command, the folder it starts from, and what must come out whatever strikes it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from injection import Point, recorded, struck, unflushed
from wholeness import different, snapshot, take, take_product, torn
from workspace import Folder
from zygote import Run, Zygote

PRODUCTS = (
    *("rows_test", "overlap", "tokenizer", "shards_train", "base model", "base adapter", "base merged"),
    *("adapter", "merged", "predictions", "voted", "scores", "report"),
)
"""Products of `small`, each kind once; `base` ones are those of the model that it starts from."""
PUBLISHED = ("voted.jsonl", "adapter")
TARGETS = [
    f"results/small/{name}"
    for name in ("report.html", "scores.json", "voted.jsonl", "adapter", "overlap.json")
]


def start(zygote: Zygote, place: Folder, *targets: str, env: dict[str, str] | None = None) -> Run:
    """Start real Snakemake; what it prints goes to `<folder>.txt`, what its jobs make to `<folder>.made`."""
    log = {"MADE_LOG": str(place.root.with_name(f"{place.root.name}.made"))}
    printed = place.root.with_name(f"{place.root.name}.txt")
    jobs, asked = str(zygote.folder / "bin"), targets or TARGETS
    return zygote.start("snakemake", jobs, *asked, cwd=place.root, output=printed, env={**log, **(env or {})})


def build(zygote: Zygote, place: Folder, *targets: str, env: dict[str, str] | None = None) -> list[str]:
    """Build by Snakemake, which must succeed: `<product> <key>` of everything that was made."""
    log, printed = (place.root.with_name(f"{place.root.name}.{kind}") for kind in ("made", "txt"))
    for file in (log, printed):
        file.unlink(missing_ok=True)
    status = start(zygote, place, *targets, env=env).wait()
    assert status == 0, printed.read_text()
    return made_of(place)


def made_of(place: Folder) -> list[str]:
    """What was made since the last `build` began, in order."""
    log = place.root.with_name(f"{place.root.name}.made")
    return log.read_text().splitlines() if log.exists() else []


@dataclass(frozen=True)
class Strike:
    """What a command that was struck left behind."""

    root: Path
    status: int
    printed: str


@dataclass(frozen=True)
class Case:
    """A command line of `program`, run in copies of the folder `before`."""

    zygote: Zygote
    before: Path
    program: str
    arguments: tuple[str, ...]

    @classmethod
    def of_product(cls, zygote: Zygote, made: Folder, product: str, before: Path) -> Case:
        """Make one product from its inputs."""
        recipe, name = ("small-base", product[5:]) if product.startswith("base ") else ("small", product)
        node = made.graph(recipe).node(name)
        take(made, node, before)
        return cls(zygote, before, "tunemake", (node.product, "--address", node.address))

    @classmethod
    def of_publishing(cls, zygote: Zygote, made: Folder, name: str, before: Path) -> Case:
        """Publish a product where an old file or link is."""
        node = made.graph("small").node(name.partition(".")[0])
        take_product(made, node, before)
        results = before / "results/small"
        (results / ".addresses").mkdir(parents=True)
        os.symlink("elsewhere", results / name) if name == "adapter" else (results / name).write_text("old\n")
        stamp = f"store/{node.product}/{node.address}.stamp"
        return cls(
            zygote, before, "tunemake", ("publish", "--recipe", "small", "--name", name, "--stamp", stamp)
        )

    def start(self, root: Path, stopped: bool = True) -> Run:
        """Run in `root`; the first time it is copied from `before`."""
        if not root.exists():
            shutil.copytree(self.before, root, symlinks=True)
        printed = root.with_name(f"{root.name}.txt")
        return self.zygote.start(self.program, *self.arguments, cwd=root, output=printed, stopped=stopped)

    def undisturbed(self) -> tuple[list[Point], dict[str, bytes]]:
        """Every change that the command makes, and what is there in the end."""
        root = self.before.with_name(f"{self.before.name}-undisturbed")
        points = recorded(self.start(root), root.with_name(f"{root.name}.strace"), root)
        assert unflushed(points, root) == []
        return points, snapshot(root, own=True)

    def struck(
        self, point: Point, how: str, expected: dict[str, bytes], judge: Callable[[Strike], list[str]]
    ) -> str:
        """What is wrong after a strike, and after a second run in peace; empty if all is well."""
        root = self.before.with_name(
            f"{self.before.name}-{point.name}-{point.number}-{how.rpartition('=')[2]}"
        )
        status, printed = struck(self.start(root), point, how), root.with_name(f"{root.name}.txt")
        wrong = judge(Strike(root, status, printed.read_text())) + torn(root)
        again = self.start(root, stopped=False).wait()
        wrong += [f"again: status {again}"] * bool(again)
        wrong += [f"{name} differs" for name in different(snapshot(root, own=True), expected)]
        shutil.rmtree(root)
        printed.unlink()
        return f"{point} {how}: {'; '.join(wrong)}" if wrong else ""


def killed(strike: Strike) -> list[str]:
    """What is wrong if the process was not killed."""
    return [] if strike.status == -signal.SIGKILL else [f"ended with {strike.status}"]


def every(points: list[Point], strike: Callable[[Point], str]) -> list[str]:
    """What went wrong at any of the points; two are tried at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [wrong for wrong in pool.map(strike, points) if wrong]
