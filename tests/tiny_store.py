"""A store for tests with the inputs of one product in it, and the real command that makes the product."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killing import Family
from workspace import environment

from workflow.products import VERSIONS
from workflow.store.build import verify
from workflow.store.files import digests_of
from workflow.store.records import InputRef, Manifest, Plan, Receipt, key_of
from workflow.store.store import MANIFEST, Store


@dataclass(frozen=True)
class Place:
    """A working folder in which one product can be made."""

    root: Path
    product: str
    slice: dict[str, Any]
    inputs: dict[str, tuple[str, Path]]  # role -> product and a folder with its content
    execution: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def plan(self) -> Plan:
        """Put the inputs into the store, and the plan."""
        references = {role: _put(self.store, *given) for role, given in self.inputs.items()}
        version = VERSIONS[self.product]
        plan = Plan(product=self.product, version=version, slice=self.slice, inputs=references, sources={})
        self.store.write_plan(plan.product, plan.address, plan.model_dump(mode="json"))
        self.store.write_where(self.product, plan.address, {"sources": {}, "execution": self.execution})
        return plan

    def start(self) -> Family:
        """Run the command of the rule."""
        address = self.plan().address
        arguments = [self.product, "--address", address, "--threads", "2"]
        return Family([sys.executable, "-m", "workflow", *arguments], self.root, environment())

    def made(self) -> dict[str, bytes]:
        """The finished product's files; nothing else may be left of the making."""
        (folder,) = self.folders()
        assert not list(self.store.work("x").parent.iterdir())
        assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def folders(self) -> list[Path]:
        """Products under their final names, each of which must be whole at any time."""
        found = [path.parent for path in (self.store.root / self.product).glob(f"[!.]*/{MANIFEST}")]
        finished = [path for path in found if len(path.name) == 32]
        for folder in finished:
            verify(folder)
        return finished


def _put(store: Store, product: str, content: Path) -> InputRef:
    plan = Plan(product=product, version=VERSIONS[product], slice={}, inputs={}, sources={})
    key = key_of(plan, {})
    folder = store.folder(product, key)
    if not folder.exists():
        shutil.copytree(content, folder, ignore=shutil.ignore_patterns(MANIFEST))
        manifest = Manifest.model_validate({"files": digests_of(folder), "counts": {}})
        (folder / MANIFEST).write_bytes(manifest.body)
        store.write_plan(product, plan.address, plan.model_dump(mode="json"))
        receipt = Receipt(product=product, address=plan.address, key=key, manifest=manifest)
        store.write_receipt(receipt)
    return InputRef(product=product, address=plan.address)
