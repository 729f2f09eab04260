"""The recipe section that says how a row becomes text and which of it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workflow.recipe.answers import OWN
from workflow.recipe.leaf import SOURCE, Section, leaf
from workflow.recipe.source import FieldName

VARIANT = "template "
"""Role of a source file: a variant that training rows are shown in, before its name."""


class Examples(Section):
    """Training rows that the templates may show before a row: few-shot prompting."""

    k: int = leaf(of=("shards",), description="Examples before each row.", gt=0, le=64)
    select: Literal["fixed", "random", "similar"] = leaf(
        of=("shards",),
        description="`fixed`: the same for all rows; `random`: chosen for each row by a hash of its id; "
        "`similar`: the training rows most like it by BM25 over words, the most similar last. Never the row "
        "itself, one that asks the same, or one of its own problem.",
    )
    seed: int | None = leaf(None, of=("shards",), description="Seed of `fixed` and `random`.", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _seed_is_used(self) -> Examples:
        if (self.select == "similar") != (self.seed is None):
            raise ValueError("`fixed` and `random` need a seed, `similar` has none")
        return self


class Prompt(Section):
    """How a row becomes text, how long it may get, and which of it is trained."""

    template: str = leaf(
        of=(SOURCE,),
        description="Jinja file with the blocks system, user, assistant and tool, relative to the recipe. "
        "In a conversation each turn is one block; `content` is what was said, `number` its round from 0.",
        min_length=1,
    )
    variants: dict[FieldName, str] = leaf(
        {},
        of=(SOURCE,),
        description="Name -> another template, in which the test rows are asked as well: its draws vote too.",
    )
    train_variants: bool = leaf(
        False,
        of=(SOURCE,),
        description="Whether training rows are shown in the variants too, each row in one of the templates "
        "by a hash of its id; else all are in `template`.",
    )
    examples: Examples | None = Field(
        None, description="Training rows shown to the templates as `examples`; left out: none."
    )
    chat_template: Literal["model", "plain"] = leaf(
        "model",
        of=("shards",),
        description="`model`: turns are joined by the model's chat template; `plain`: they are joined as the "
        "blocks have them, as base models are trained.",
    )
    stop: str | None = leaf(
        None,
        of=("shards",),
        description="With `plain`: text behind each answer, trained and ending each generation; by default "
        "the end token.",
        min_length=1,
    )
    train_on: Literal["last", "all_assistant", "all"] = leaf(
        "last",
        of=("shards",),
        description="Tokens whose loss counts: the last answer, every answer of a conversation (but those of "
        "weight 0), or everything, prompts too.",
    )
    history: int | None = leaf(
        None,
        of=("shards",),
        description="Rounds of a conversation kept before the last one; default all.",
        ge=0,
    )
    max_length: int | Literal["model"] | None = leaf(
        None,
        of=("shards",),
        description="Longest row in tokens, prompt and answer; `model`: what the model was made for, by its "
        "config.json.",
    )
    max_source_length: int | None = leaf(None, of=("shards",), description="Longest prompt in tokens.", gt=0)
    max_target_length: int | None = leaf(
        None, of=("shards",), description="Longest answer in tokens, with its stop token.", gt=0
    )
    overflow: Literal["error", "drop", "truncate_left", "truncate_right", "drop_oldest_turn"] = leaf(
        "error",
        of=("shards",),
        description="What happens to a training row over a limit: stop, leave the row out, cut the beginning "
        "or the end of its last user message, or leave out the oldest rounds of the conversation and, if "
        "that is not enough, the row; the answer is never cut. Always counted. A test row is never left "
        "out: it is kept whole and counted.",
    )

    @model_validator(mode="after")
    def _one_kind_of_limit(self) -> Prompt:
        pair = (self.max_source_length, self.max_target_length)
        if isinstance(self.max_length, int) and self.max_length < 1:
            raise ValueError("max_length must be a positive number of tokens, or `model`")
        if self.max_length is None and None in pair:
            raise ValueError("give max_length, or both max_source_length and max_target_length")
        if self.max_length is not None and pair != (None, None):
            raise ValueError("max_length excludes max_source_length and max_target_length")
        return self

    @model_validator(mode="after")
    def _variants_are_there(self) -> Prompt:
        if self.train_variants and not self.variants:
            raise ValueError("train_variants needs variants, which training rows are to be shown in")
        return self

    @model_validator(mode="after")
    def _own_is_taken(self) -> Prompt:
        if OWN in self.variants:
            raise ValueError(f"variants: `{OWN}` is what voting calls `template`; choose another name")
        return self

    @model_validator(mode="after")
    def _stop_is_of_plain_text(self) -> Prompt:
        if self.stop and self.chat_template == "model":
            raise ValueError("stop belongs to `chat_template: plain`; the model's chat template has its own")
        return self
