"""What the store writes down: plans, manifests, receipts. Each is small, canonical JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workflow.store.address import ADDRESS, address_of, canonical

HEX32 = f"^{ADDRESS}$"
HEX64 = r"^[0-9a-f]{64}$"
DESCRIPTION = "README.md"
"""A file that describes what lies beside it: listed and verified like all, but no content."""


class Record(BaseModel):
    """A record of the store: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def body(self) -> bytes:
        """The bytes of its file: canonical JSON and a newline."""
        return canonical(self.model_dump(mode="json")) + b"\n"


class Sealed(Record):
    """A record that holds the digest of everything else in it: no part can change unnoticed."""

    digest: str = Field(default="", description="Digest of everything else in this record.")

    @model_validator(mode="after")
    def _fits(self) -> Sealed:
        found = address_of(self.model_dump(mode="json", exclude={"digest"}))
        if not self.digest:  # a new record; one that is read back has it, see `store.read_record`
            object.__setattr__(self, "digest", found)
        elif self.digest != found:
            raise ValueError("its content does not have the digest that it names")
        return self


class InputRef(Record):
    """Another product, by what was asked for."""

    product: str = Field(description="Product name.")
    address: str = Field(description="Its address.", pattern=HEX32)


class Plan(Record):
    """What a job is to make: identity only, immutable, found at `<address>.plan.json`."""

    product: str = Field(description="Product name.")
    version: int = Field(description="Version of the product's semantics.", ge=1)
    slice: dict[str, Any] = Field(description="The part of the recipe that decides the bytes.")
    inputs: dict[str, InputRef] = Field(description="Role -> input product.")
    sources: dict[str, str] = Field(description="Role -> SHA-256 of a source file.")

    @property
    def address(self) -> str:
        """The plan's address: the digest of everything in it, 32 hex digits."""
        return address_of(self.model_dump(mode="json"))


class FileRecord(Record):
    """One file of a product's folder."""

    bytes: int = Field(description="Size in bytes.", ge=0)
    sha256: str = Field(description="SHA-256 of its content, hex.", pattern=HEX64)


class Manifest(Sealed):
    """What a folder holds: deterministic facts only, written last."""

    files: dict[str, FileRecord] = Field(description="Relative path -> size and digest.")
    counts: dict[str, Any] = Field(description="What the product counted while it was made.")

    @property
    def content(self) -> str:
        """Digest of names and contents, 32 hex digits: what a consumer's key depends on.

        A model card is not among them: other words in it must not make predictions anew.
        """
        return address_of({n: record.sha256 for n, record in self.files.items() if n != DESCRIPTION})


class Receipt(Sealed):
    """The answer to a plan: which folder it turned out to be."""

    product: str = Field(description="Product name.")
    address: str = Field(description="What was asked for.", pattern=HEX32)
    key: str = Field(description="What went in; names the folder.", pattern=HEX32)
    manifest: Manifest = Field(description="Copy of the folder's manifest.")


def key_of(plan: Plan, contents: dict[str, str]) -> str:
    """The key of a plan whose inputs turned out to have these contents (role -> digest)."""
    asked = plan.model_dump(mode="json", exclude={"inputs"})
    return address_of({**asked, "contents": contents})


def key_from(plan: Plan, content: Callable[[str], str | None]) -> str | None:
    """The same, asking for the content of each role; None, and no more is asked, where one is not known."""
    contents: dict[str, str] = {}
    for role in plan.inputs:
        if (found := content(role)) is None:
            return None
        contents[role] = found
    return key_of(plan, contents)
