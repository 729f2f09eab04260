"""Recipe sections that say where rows come from and how a row becomes text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflow.patterns import named_groups
from workflow.recipe.leaf import SOURCE, Section, leaf

FIELD_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FieldName = Annotated[str, Field(pattern=FIELD_NAME)]


class Parse(Section):
    """Take fields out of a text column with a regular expression, and prove that nothing was lost."""

    field: FieldName = leaf(of=("rows",), description="Column that holds the rendered user turn.")
    pattern: str = leaf(
        of=("rows",),
        description="RE2 pattern with named groups; each group becomes a prompt field. A group called "
        "`options` is split into its lines, whose letters (`A. `) are taken off.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _pattern_has_names(self) -> Parse:
        if not named_groups(self.pattern):
            raise ValueError("the pattern needs at least one named group: (?P<question>...)")
        return self


class SourceFile(Section):
    """What all sources share: one file, its digest, and how many bad rows are tolerated."""

    path: str = leaf(of=(SOURCE,), description="Data file, relative to the recipe's folder.", min_length=1)
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


class Round1Source(SourceFile):
    """Datawhale's logic rows: `{problem, questions: [{question, options, answer}], id}`, JSON lines."""

    format: Literal["round1"] = leaf(of=("rows",), description="Row format of the file.")


class AlpacaSource(SourceFile):
    """`{instruction, input, output}` rows, a JSON list or JSON lines."""

    format: Literal["alpaca"] = leaf(of=("rows",), description="Row format of the file.")
    parse: Parse | None = Field(None, description="Take the prompt fields out of one column.")


class ColumnsSource(SourceFile):
    """Any JSON lines, JSON list or CSV file whose columns are mapped by name."""

    format: Literal["columns"] = leaf(of=("rows",), description="Row format of the file.")
    prompt: dict[FieldName, str] = leaf(
        of=("rows",),
        description="Template variable -> column, for the system and user blocks.",
        min_length=1,
    )
    target: dict[FieldName, str] = leaf(
        {},
        of=("rows",),
        description="Template variable -> column, for the assistant block only; a prompt cannot see it.",
    )
    id: str | None = leaf(
        None, of=("rows",), description="Column with a unique row id; else the row's digest."
    )
    gold: str | None = leaf(None, of=("rows",), description="Column with the right answer, for scoring.")


Source = Annotated[Round1Source | AlpacaSource | ColumnsSource, Field(discriminator="format")]


class Split(Section):
    """Take the test rows out of the training file, by a hash of each row's id."""

    test: float = leaf(
        of=("rows",), description="Share of the rows (or of the problems) to test on.", gt=0, lt=1
    )
    seed: int = leaf(0, of=("rows",), description="Seed of the hash that chooses them.", ge=0)


class Dataset(Section):
    """Where training and test rows come from."""

    train: Source | None = Field(None, description="Rows to train on.")
    test: Source | None = Field(None, description="Rows to predict and score.")
    split: Split | None = Field(None, description="Test on a share of `train` instead of a file.")

    @model_validator(mode="after")
    def _one_way_to_test(self) -> Dataset:
        if self.split and self.test:
            raise ValueError("give either `test` or `split`, not both")
        if self.split and not self.train:
            raise ValueError("`split` needs `train`, the rows to split")
        if not self.train and not self.test:
            raise ValueError("give `train`, `test` or both")
        return self
