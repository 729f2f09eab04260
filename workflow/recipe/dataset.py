"""Recipe sections that say where rows come from and how a row becomes text."""

from __future__ import annotations

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
from workflow.recipe.leaf import SOURCE, Section, leaf

Source = Annotated[
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


class Prompt(Section):
    """How a row becomes messages and how long it may get."""

    template: str = leaf(
        of=(SOURCE,),
        description="Jinja file with the blocks system, user and assistant, relative to the recipe.",
        min_length=1,
    )
    max_length: int | None = leaf(
        None, of=("shards",), description="Longest row in tokens, prompt and answer.", gt=0
    )
    max_source_length: int | None = leaf(None, of=("shards",), description="Longest prompt in tokens.", gt=0)
    max_target_length: int | None = leaf(
        None, of=("shards",), description="Longest answer in tokens, with its stop token.", gt=0
    )
    overflow: Literal["error", "drop", "truncate_left", "truncate_right"] = leaf(
        "error",
        of=("shards",),
        description="What happens to a training row over a limit: stop, leave the row out, or cut the "
        "beginning or the end of its last user message; the answer is never cut. Always counted. "
        "A test row is never left out: `drop` keeps it whole and counts it.",
    )

    @model_validator(mode="after")
    def _one_kind_of_limit(self) -> Prompt:
        pair = (self.max_source_length, self.max_target_length)
        if self.max_length is None and None in pair:
            raise ValueError("give max_length, or both max_source_length and max_target_length")
        if self.max_length is not None and pair != (None, None):
            raise ValueError("max_length excludes max_source_length and max_target_length")
        return self
