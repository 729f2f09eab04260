"""Where things lie in the store, and reading them back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.schemas import check
from workflow.store.address import canonical
from workflow.store.files import read_json, write_atomic, write_if_changed
from workflow.store.records import Manifest, Plan, Receipt

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Store:
    """A folder of products. `root` is relative to the working directory unless the user says otherwise."""

    root: Path

    @classmethod
    def here(cls) -> Store:
        """The store of this working directory: `store/`, or what TUNEMAKE_STORE names (a shared one)."""
        return cls(Path(os.environ.get("TUNEMAKE_STORE", "store")))

    def file(self, product: str, address: str, kind: str) -> Path:
        """`<root>/<product>/<address><kind>`; kinds: .plan.json, .where.json, .json, .stamp."""
        return Path(f"{self.root}/{product}/{address}{kind}")  # a third of the time of joining by `/`

    def stamp(self, product: str, address: str) -> Path:
        """The only file of a product that Snakemake knows: worthless, and written again at need."""
        return self.file(product, address, ".stamp")

    def folder(self, product: str, key: str) -> Path:
        """The folder that a key names."""
        return self.root / product / key

    @property
    def pieces(self) -> Path:
        """Parts of products that other products may use again: a cache that may be deleted at any time."""
        return self.root / "pieces"

    def work(self, key: str) -> Path:
        """Durable state of an unfinished job; deleted when its folder is complete."""
        return self.root / "work" / key

    def run_record(self, product: str, key: str) -> Path:
        """What varied when a folder was built: seconds, host, versions. Nothing depends on it."""
        return self.root / product / f"{key}.run.json"

    def plan(self, product: str, address: str) -> Plan:
        """Read a plan.

        Raises:
            BuildError: There is none, or its content does not have this address.
        """
        path = self.file(product, address, ".plan.json")
        if not path.exists():
            raise BuildError(f"{path}: no such plan; ask for a file in results/, not for a stamp")
        plan = Plan.model_validate(check("plan", read_json(path), path))
        if (plan.product, plan.address) != (product, address):
            raise BuildError(
                f"{path}: damaged (its content is {plan.product} {plan.address}); delete it and build again"
            )
        return plan

    def write_plan(self, product: str, address: str, plan: dict[str, Any]) -> None:
        """Write a plan (as `Plan` has it in JSON) unless it is there."""
        path = self.file(product, address, ".plan.json")
        if not path.exists():
            write_atomic(path, canonical(plan) + b"\n")

    def where(self, product: str, address: str) -> dict[str, Any]:
        """How and from where a plan is to run now: `{"sources": {role: path}, "execution": {...}}`.

        Raises:
            BuildError: It is missing or damaged.
        """
        path = self.file(product, address, ".where.json")
        found = read_json(path)
        parts = [found.get(name) for name in ("sources", "execution")] if isinstance(found, dict) else [None]
        if not all(isinstance(part, dict) for part in parts):
            raise BuildError(f"{path}: damaged; delete it and build again")
        return dict(found)

    def write_where(self, product: str, address: str, where: dict[str, Any]) -> None:
        """Replace that if it changed."""
        write_if_changed(self.file(product, address, ".where.json"), canonical(where) + b"\n")

    def receipt(self, product: str, address: str) -> Receipt | None:
        """The receipt of an address, or None if it was not built yet.

        Raises:
            BuildError: It is damaged.
        """
        path = self.file(product, address, ".json")
        if not path.exists():
            return None
        receipt = Receipt.model_validate(check("receipt", read_json(path), path))
        if (receipt.product, receipt.address) != (product, address):
            raise BuildError(f"{path}: damaged (a receipt of another address); delete it")
        return receipt

    def write_receipt(self, receipt: Receipt) -> None:
        """Write a receipt; equal bytes are left alone."""
        path = self.file(receipt.product, receipt.address, ".json")
        write_if_changed(path, canonical(receipt.model_dump(mode="json")) + b"\n")

    def built(self, product: str, address: str) -> Receipt | None:
        """The receipt of an address whose folder is there; contents are not read."""
        receipt = self.receipt(product, address)
        if receipt and (self.folder(product, receipt.key) / MANIFEST).is_file():
            return receipt
        return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest inside a product's folder.

    Raises:
        BuildError: It is missing or damaged.
    """
    path = folder / MANIFEST
    return Manifest.model_validate(check("manifest", read_json(path), path))
