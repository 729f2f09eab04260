"""What people and machines do to a folder between two builds, and what a build must come to."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from workspace import Folder, folder
from zygote import Zygote

SHOWN = ("voted.jsonl", "scores.json", "adapter", "overlap.json")
WANTED = tuple(f"results/small/{name}" for name in SHOWN)
EDITS = {
    "train row": ("data/train.jsonl", "小明", "老明"),
    "test row": ("data/test.jsonl", "小刚", "老刚"),
    "template": ("prompts/tiny.jinja", "你是逻辑推理专家", "你是推理专家"),
    "tuning": ("small.yaml", "r: 8", "r: 4"),
    "voting": ("small.yaml", "ties: first", "ties: abstain"),
}
"""What is edited -> file of recipes/, and what in it becomes what."""

Content = frozenset[str]
"""Edits that are in force; none: the folder as it was made."""


def text(place: Folder, file: str, content: Content) -> str:
    """What a file of recipes/ says when these edits are in force."""
    now = place.path("pristine", file).read_text()
    for edited, old, new in (EDITS[name] for name in sorted(content)):
        if edited == file:
            assert old in now
            now = now.replace(old, new, 1)
    return now


def edit(place: Folder, content: Content) -> list[Path]:
    """Bring the folder to a content; files that say so already are left alone. Returns what was written."""
    written = []
    for file in sorted({name for name, _, _ in EDITS.values()}):
        path, wanted = place.path("recipes", file), text(place, file, content)
        if path.read_text() != wanted:
            path.write_text(wanted)
            written.append(path)
    return written


def new(root: Path) -> Folder:
    """A folder that remembers what its recipes said at first."""
    place = folder(root)
    shutil.copytree(root / "recipes", root / "pristine")
    return place


@dataclass
class Truth:
    """What building everything from nothing comes to, by content; each is built once."""

    zygote: Zygote
    root: Path
    known: dict[Content, dict[str, tuple[str, str]]] = field(default_factory=dict)

    def of(self, content: Content) -> dict[str, tuple[str, str]]:
        """Name in the graph -> key and digest of the manifest of what is shown and all that it needs."""
        if content not in self.known:
            place = new(self.root / "-".join(sorted(content) or ["pristine"]).replace(" ", "_"))
            edit(place, content)
            printed = place.root.with_name(f"{place.root.name}.txt")
            status = self.zygote.run("remake", "small", cwd=place.root, output=printed)
            assert status == 0, printed.read_text()
            self.known[content] = products(place)
        return self.known[content]


def products(place: Folder) -> dict[str, tuple[str, str]]:
    """`<product> <key>` -> the manifest's digest, of the shown files of `small` and what they are made from.

    What is lost behind a finished product is not needed, and may not be there.
    """
    graph, found = place.graph("small"), {}
    for name in ("voted", "scores", "adapter", "overlap"):
        shown = graph.node(name)
        assert place.store.built(shown.product, shown.address), f"{name} is not built"
        for node in shown.closure():
            if receipt := place.store.built(node.product, node.address):
                found[f"{node.product} {receipt.key}"] = (node.address, receipt.manifest.content)
    return found


def wrongly_shown(place: Folder, results: Path | None = None) -> list[str]:
    """Names in results/small that do not show what the recipe says now."""
    graph, wrong = place.graph("small"), []
    results = results or place.path("results/small")
    for name in SHOWN:
        node = graph.node(name.partition(".")[0])
        receipt = place.store.built(node.product, node.address)
        source = receipt and place.store.folder(node.product, receipt.key) / (name if "." in name else "")
        target = results / name
        if source is None or not target.exists():
            wrong.append(f"{name} is missing")
        elif "." not in name:
            wrong += [f"{name} is another one"] * (not os.path.samefile(source, target))
        elif source.read_bytes() != target.read_bytes():
            wrong.append(f"{name} is stale")
    return wrong
