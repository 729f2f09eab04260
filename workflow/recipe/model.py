"""The recipe section that says which model is trained."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from workflow.recipe.leaf import SOURCE, Section, leaf

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", re.ASCII)
COMMIT = re.compile(r"^[0-9a-f]{40}$")
UNPINNED = "unpinned"


class RecipeBase(Section):
    """A model made by another recipe: its merged checkpoint."""

    recipe: str = leaf(
        of=(SOURCE,), description="Name of the other recipe.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )


class ScratchBase(Section):
    """A new model: architecture and tokenizer from a folder, weights drawn from `training.seed`."""

    scratch: str = leaf(
        of=(SOURCE,),
        description="Folder with config.json and the tokenizer's files, relative to the recipe.",
        min_length=1,
    )


class Model(Section):
    """The model that training starts from."""

    base: str | RecipeBase | ScratchBase = leaf(
        of=("model", "tokenizer"),
        description="Hub id (with `revision`), local folder (without), `{recipe: name}` or "
        "`{scratch: folder}`.",
    )
    revision: str | None = leaf(
        None,
        of=("model", "tokenizer"),
        description="Commit of the hub id, 40 hex digits; `unpinned` until `tunemake lock` has run.",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = leaf(
        of=("adapter",), description="Type that the base weights are loaded in for training."
    )

    @model_validator(mode="after")
    def _revision_fits(self) -> Model:
        if self.revision is None:
            return self
        if not isinstance(self.base, str) or not HUB_ID.match(self.base):
            raise ValueError("revision belongs to a hub id such as Qwen/Qwen2-7B-Instruct")
        if self.revision != UNPINNED and not COMMIT.match(self.revision):
            raise ValueError("revision must be a commit (40 hex digits) or `unpinned`, never a branch")
        return self

    @property
    def is_hub(self) -> bool:
        """Whether the base is fetched from a model hub."""
        return self.revision is not None
