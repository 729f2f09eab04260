"""What all sources of rows share: a file, the steps its records go through, and how a row is named."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from workflow.recipe.leaf import SOURCE, Section, leaf
from workflow.recipe.model import COMMIT, HUB_ID, UNPINNED

FIELD_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FieldName = Annotated[str, Field(pattern=FIELD_NAME)]
Column = Annotated[str, Field(min_length=1)]
"""A field of a record; dots go inwards: `instances.0.input`."""


class Condition(Section):
    """What a record must be like to be kept; all that is given must hold."""

    field: Column = leaf(of=("rows",), description="Field of the record; dots go inwards.")
    present: bool | None = leaf(
        None, of=("rows",), description="Whether there must be a value; null and empty text are none."
    )
    one_of: list[str | int | float | bool] | None = leaf(
        None,
        of=("rows",),
        description="Values of which it must be one, compared as text: 1 is '1', true is 'true'.",
        min_length=1,
    )
    none_of: list[str | int | float | bool] | None = leaf(
        None, of=("rows",), description="Values of which it must be none, compared as text.", min_length=1
    )
    min_characters: int | None = leaf(
        None, of=("rows",), description="Fewest characters, of all texts in the field together.", gt=0
    )
    max_characters: int | None = leaf(
        None, of=("rows",), description="Most characters, of all texts in the field together.", gt=0
    )

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if all(getattr(self, name) is None for name in type(self).model_fields if name != "field"):
            raise ValueError("give present, one_of, none_of, min_characters or max_characters")
        return self


class HubData(Section):
    """A data set of the Hugging Face hub, or a folder laid out like one, read by the library `datasets`."""

    hub: str = leaf(
        of=("rows",),
        description="Id of the data set (with `revision`), or a folder, relative to the recipe's (without).",
        min_length=1,
    )
    revision: str | None = leaf(
        None,
        of=("rows",),
        description="Commit of the hub id, 40 hex digits; `unpinned` until `tunemake lock` has run.",
    )
    split: str = leaf(
        "train", of=("rows",), description="Split of the data set, as its authors call it.", min_length=1
    )
    config: str | None = leaf(
        None, of=("rows",), description="Configuration (subset) of the data set; null: its default."
    )

    @model_validator(mode="after")
    def _revision_fits(self) -> HubData:
        if self.revision is not None and not HUB_ID.match(self.hub):
            raise ValueError("revision belongs to a hub id such as openai/gsm8k")
        if self.revision not in (None, UNPINNED) and not COMMIT.match(str(self.revision)):
            raise ValueError("revision must be a commit (40 hex digits) or `unpinned`, never a branch")
        return self


class Sample(Section):
    """Some of the rows, chosen by a hash of each row's id: data that grow keep what was chosen before."""

    n: int | None = leaf(None, of=("mixture",), description="Most rows that are kept.", gt=0)
    share: float | None = leaf(
        None, of=("mixture",), description="Share of the rows that is kept, about.", gt=0, lt=1
    )
    seed: int = leaf(0, of=("mixture",), description="Seed of the hash.", ge=0)
    deduplicate: bool = leaf(
        False, of=("mixture",), description="Keep one of the rows that say the same, before all else."
    )
    repeat: int = leaf(
        1, of=("mixture",), description="Times that each row is seen in an epoch: its weight.", gt=0, le=100
    )

    @model_validator(mode="after")
    def _says_something(self) -> Sample:
        if self.n and self.share:
            raise ValueError("give n or share, not both")
        if not (self.n or self.share or self.deduplicate or self.repeat > 1):
            raise ValueError("give n, share, deduplicate or repeat")
        return self


def _kind(path: Any) -> str:
    """Which of the two a path is, so that a mistake is explained as one of its kind."""
    return "a data set" if isinstance(path, (dict, HubData)) else "a file"


class SourceFile(Section):
    """What all sources share: one file, its digest, its records' steps, how many bad rows are tolerated."""

    path: Annotated[
        Annotated[Column, Tag("a file")] | Annotated[HubData, Tag("a data set")], Discriminator(_kind)
    ] = leaf(
        of=(SOURCE,),
        description="Data file, relative to the recipe's folder: .jsonl, .json, .csv or .tsv, each also "
        "with .gz behind it, or .parquet; or `{hub: id, revision: commit, split: train}`.",
    )
    sha256: str | None = leaf(
        None,
        of=(SOURCE,),
        description="Expected SHA-256 of the file in hex; a build stops when it differs.",
        pattern=r"^[0-9a-f]{64}$",
    )
    bad_rows: int = leaf(
        0,
        of=("rows",),
        description="Number of invalid rows that may be left out (each is listed); more is an error.",
        ge=0,
    )
    fill: dict[FieldName, str] = leaf(
        {},
        of=("rows",),
        description="Placeholder -> text: `{{name}}` in any text of a record becomes the text given for "
        "`name`. When any is given, a placeholder without a text makes a bad row.",
    )
    clean: list[Literal["strip", "nfc", "collapse_whitespace", "drop_empty"]] = leaf(
        [],
        of=("rows",),
        description="Steps, in this order, on all texts of a record: `strip` white space at both ends; "
        "`nfc`, Unicode's composed form; `collapse_whitespace`: a run of it becomes one space, or one line "
        "end where it holds one; `drop_empty` leaves out rows whose prompt, target or last answer has no "
        "text.",
    )
    where: list[Condition] = leaf(
        [],
        of=("rows",),
        description="Conditions on a record's fields, after cleaning; records that fail one are left out "
        "and counted.",
    )

    sample: Sample | None = Field(
        None, description="Some of the rows, or all of them, once or several times."
    )

    @model_validator(mode="after")
    def _one_digest(self) -> SourceFile:
        if self.sha256 and isinstance(self.path, HubData):
            raise ValueError("sha256 belongs to a file; a data set of the hub is pinned by its revision")
        return self


class RecordSource(SourceFile):
    """What all sources share whose records are found, and rows named, by columns."""

    id: Column | None = leaf(
        None, of=("rows",), description="Column with a unique row id; else the row's digest."
    )
    explode: Column | None = leaf(
        None,
        of=("rows",),
        description="Column with a list: each of its items makes a record of its own, in which the column "
        "holds that one item. Rows are called `{id}#{position}`, and a split keeps those of one id together.",
    )
