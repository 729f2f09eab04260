"""An experiment: one recipe, and variants of it that differ in declared factors."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from workflow.recipe.leaf import SOURCE, Section, fields_below, leaf
from workflow.recipe.recipe import Recipe

BASELINE = "baseline"
"""Name of the arm that the others are compared with."""
MAX_ARMS = 64


def _is_field(dotted: str) -> str:
    """A field or section of a recipe, `training.learning_rate`."""
    parts = dotted.split(".")
    for place, part in enumerate(parts):
        known = fields_below(Recipe, parts[:place])
        if known is not None and part not in known:
            before = "".join(f"{name}." for name in parts[:place])
            near = get_close_matches(part, known, n=1, cutoff=0.6)
            hint = f"did you mean {before}{near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
            raise ValueError(f"a recipe has no field {before}{part}; {hint}")
    if parts[0] == "execution":
        raise ValueError("how a recipe runs changes no result: it cannot be a factor")
    return dotted


def _is_arm(name: str) -> str:
    if name == BASELINE:
        raise ValueError(f"{BASELINE} is the arm that the recipe under `baseline` is")
    return name


NAMED = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
FieldName = Annotated[str, AfterValidator(_is_field)]
RecipeName = Annotated[str, Field(pattern=NAMED)]
ArmName = Annotated[str, Field(pattern=NAMED), AfterValidator(_is_arm)]
Words = Annotated[str, Field(min_length=1)]


class Arm(Section):
    """One variant: the baseline with other values, or a recipe of its own."""

    set: dict[FieldName, Any] | None = leaf(
        None,
        of=("experiment",),
        description="Field of the baseline -> its value in this arm; null leaves the field out.",
        min_length=1,
    )
    recipe: RecipeName | None = leaf(
        None, of=("experiment",), description="Name of the recipe that is this arm."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Arm:
        if (self.set is None) == (self.recipe is None):
            raise ValueError("an arm is either `set: {field: value}` or `recipe: name`")
        return self


class Review(Section):
    """Two arms judged by people who do not see which is which."""

    arm: str | None = leaf(
        None,
        of=("experiment",),
        description="The arm whose greedy answers are shown beside the baseline's; not needed where there is "
        "only one.",
    )
    rows: int = leaf(50, of=("review",), description="Test rows to judge, at most.", gt=0, le=10000)
    seed: int = leaf(
        0, of=("review",), description="Seed of the choice and order of rows and of A and B.", ge=0
    )
    sheet: str | None = leaf(
        None,
        of=(SOURCE,),
        description="A filled-in review.csv, relative to this file; its preferences are in the report.",
        min_length=1,
    )


class Experiment(Section):
    """What is compared with what, and in which factors the two may differ."""

    question: Words = leaf(of=("experiment",), description="What the experiment is to answer, in a sentence.")
    baseline: RecipeName = leaf(
        of=("experiment",), description="Name of the recipe that arms are compared with."
    )
    factors: dict[FieldName, Words] = leaf(
        of=("experiment",),
        description="Field or section of a recipe in which arms may differ -> what it is, in words. Any "
        "other difference is an error.",
        min_length=1,
    )
    arms: dict[ArmName, Arm] | None = Field(None, description="Name -> arm.", min_length=1)
    matrix: dict[FieldName, list[Any]] | None = leaf(
        None,
        of=("experiment",),
        description="Field -> values: one arm for each combination; the baseline's own is left out.",
        min_length=1,
    )
    review: Review | None = Field(None, description="Blind judgement by people.")

    @model_validator(mode="after")
    def _one_kind_of_arms(self) -> Experiment:
        if (self.arms is None) == (self.matrix is None):
            raise ValueError("an experiment has either `arms` or a `matrix`")
        return self

    @model_validator(mode="after")
    def _the_reviewed_arm_is_there(self) -> Experiment:
        arms = list(self.arms or {})
        if self.review and self.arms and self.review.arm is None and len(arms) > 1:
            raise ValueError(f"review.arm: say which arm is judged beside the baseline: {', '.join(arms)}")
        if self.review and self.review.arm and self.arms and self.review.arm not in arms:
            raise ValueError(f"review.arm: there is no arm {self.review.arm}; there are: {', '.join(arms)}")
        return self
