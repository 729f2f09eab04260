"""Where things lie in the store, and reading them back."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from workflow.errors import BuildError
from workflow.progress import say
from workflow.schemas import check
from workflow.store.address import canonical
from workflow.store.files import read_json, write_atomic, write_if_changed
from workflow.store.records import Manifest, Plan, Receipt, Record

MANIFEST = "manifest.json"
FORMAT = 1
"""Number of the store's layout, raised when an older tunemake could misread a newer store."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


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

    @property
    def digests(self) -> Path:
        """Cache of file digests (see `workflow.sources`); may be deleted at any time."""
        return self.root / "digests.sqlite"

    def has(self, product: str, key: str) -> bool:
        """Whether a finished folder is there."""
        return (self.folder(product, key) / MANIFEST).is_file()

    def lock(self, product: str, key: str) -> Path:
        """The lock of a key: whoever makes or deletes its folder holds it."""
        return self.root / product / f"{key}.lock"

    def open(self) -> None:
        """Refuse a store that a newer tunemake wrote, and number a new one.

        Raises:
            BuildError: The store has a newer format.
        """
        self.check_format()
        if not (self.root / "format.json").exists():
            write_atomic(self.root / "format.json", canonical({"format": FORMAT}) + b"\n")

    def check_format(self) -> None:
        """Refuse a store that a newer tunemake wrote; looked at once per process."""
        _check_format(self.root.absolute())

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
        self.check_format()
        if not path.exists():
            raise BuildError(f"{path}: no such plan; ask for a file in results/, not for a stamp")
        plan = read_record(Plan, "plan", path)
        if (plan.product, plan.address) != (product, address):
            raise BuildError(
                f"{path}: damaged (its content is {plan.product} {plan.address}); delete it and build again"
            )
        return plan

    def write_plan(self, product: str, address: str, plan: dict[str, Any]) -> None:
        """Write a plan (as `Plan` has it in JSON); the same bytes are left alone, damaged ones replaced."""
        write_if_changed(self.file(product, address, ".plan.json"), canonical(plan) + b"\n")

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
        self.check_format()
        path = self.file(product, address, ".json")
        if not path.exists():
            return None
        receipt = read_record(Receipt, "receipt", path)
        if (receipt.product, receipt.address) != (product, address):
            raise BuildError(f"{path}: damaged (a receipt of another address); delete it")
        return receipt

    def write_receipt(self, receipt: Receipt) -> None:
        """Write a receipt; equal bytes are left alone."""
        path = self.file(receipt.product, receipt.address, ".json")
        write_if_changed(path, receipt.body)

    def built(self, product: str, address: str) -> Receipt | None:
        """The receipt of an address whose folder is there; contents are not read.

        A damaged receipt counts for nothing, which is said: a build finds the folder and writes it again.
        """
        self.check_format()
        try:
            receipt = self.receipt(product, address)
        except BuildError as error:
            say(f"{error}; it is not used")
            return None
        return receipt if receipt and self.has(product, receipt.key) else None


@cache
def _check_format(root: Path) -> None:
    path = root / "format.json"
    if not path.exists():
        return
    found = read_json(path)
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int):
        raise BuildError(f'{path}: damaged; it must say {{"format":{FORMAT}}}')
    if number > FORMAT:
        raise BuildError(
            f"{root}: written by a newer tunemake (store format {number}, this one knows {FORMAT}); "
            "update tunemake or set TUNEMAKE_STORE to another store"
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest inside a product's folder.

    Raises:
        BuildError: It is missing or damaged.
    """
    return read_record(Manifest, "manifest", folder / MANIFEST)


def read_record(model: type[AnyRecord], name: str, path: Path) -> AnyRecord:
    """A plan, manifest or receipt as it was written, to the byte.

    Raises:
        BuildError: It is missing, damaged or edited.
    """
    try:
        record = model.model_validate(check(name, read_json(path), path))
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise BuildError(f"{path}: damaged or edited ({reason}); delete it and build again") from None
    if record.body != path.read_bytes():
        raise BuildError(f"{path}: damaged or edited (not as it was written); delete it and build again")
    return record
