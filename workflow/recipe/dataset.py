"""Recipe sections that say where rows come from and how a row becomes text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflow.recipe.formats import (
    AlpacaSource,
    ChatHistorySource,
    ColumnsSource,
    Gsm8kSource,
    MessagesSource,
    MultipleChoiceSource,
    PromptResponseSource,
    Round1Source,
    ShareGptSource,
    TextSource,
)
from workflow.recipe.leaf import Section, leaf
from workflow.recipe.source import FieldName, Sample

FileSource = Annotated[
    Round1Source
    | AlpacaSource
    | ColumnsSource
    | PromptResponseSource
    | ChatHistorySource
    | ShareGptSource
    | MessagesSource
    | MultipleChoiceSource
    | Gsm8kSource
    | TextSource,
    Field(discriminator="format"),
]


class MixtureSource(Section):
    """Several sources as one; ids of rows become `{name of the source}/{id}`."""

    format: Literal["mixture"] = leaf(of=("rows",), description="Several sources together.")
    sources: dict[FieldName, FileSource] = leaf(
        of=("mixture",), description="Name -> source, each with a format of its own.", min_length=1
    )
    sample: Sample | None = Field(None, description="The same of all rows together.")


Source = Annotated[FileSource | MixtureSource, Field(discriminator="format")]


def sources_of(dataset: Dataset) -> Iterator[tuple[tuple[str, ...], FileSource]]:
    """Every source that is a file or a data set, with its place in the section."""
    for split, source in _by_split(dataset):
        if isinstance(source, MixtureSource):
            for name, part in source.sources.items():
                yield (split, "sources", name), part
        elif source:
            yield (split,), source


def _by_split(dataset: Dataset) -> list[tuple[str, Source | None]]:
    names = ("train", "test", "validation")
    return [(name, getattr(dataset, name)) for name in names]


class Split(Section):
    """Take the test rows out of the training file, by a hash of each row's id."""

    test: float | None = leaf(
        None, of=("rows",), description="Share of the rows (or of the problems) to test on.", gt=0, lt=1
    )
    test_rows: int | None = leaf(
        None,
        of=("rows",),
        description="Number of rows (or problems) to test on, of each source; growing data may move some.",
        gt=0,
    )
    seed: int = leaf(0, of=("rows",), description="Seed of the hash that chooses them.", ge=0)

    @model_validator(mode="after")
    def _one_size(self) -> Split:
        if (self.test is None) == (self.test_rows is None):
            raise ValueError("give either test, a share, or test_rows, a number")
        return self


class Dataset(Section):
    """Where training and test rows come from."""

    train: Source | None = Field(None, description="Rows to train on.")
    test: Source | None = Field(None, description="Rows to predict and score.")
    validation: Source | None = Field(
        None, description="Rows with known answers that weigh voters, for `voting.weights: accuracy`."
    )
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
