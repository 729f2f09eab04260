"""The recipe section that says what data is refused."""

from __future__ import annotations

from workflow.recipe.leaf import Section, leaf


class Gate(Section):
    """What data is refused: shares from 0 to 1, counted in any case and refused only where one is given."""

    max_cut: float | None = leaf(
        None,
        of=("shards",),
        description="Largest share of a split's rows that the limits of `prompt` may cut, leave out, or "
        "(test rows) find too long; above it the build stops before anything is trained.",
        ge=0,
        lt=1,
    )
    max_duplicates: float | None = leaf(
        None,
        of=("shards",),
        description="Largest share of training rows that say the very same, prompt and answer, as another "
        "before them; above it the build stops before anything is trained.",
        ge=0,
        lt=1,
    )
    min_trained: float | None = leaf(
        None,
        of=("shards",),
        description="Smallest share of the training tokens whose loss counts; below it the build stops "
        "before anything is trained.",
        gt=0,
        le=1,
    )
    max_contaminated: float | None = leaf(
        None,
        of=("overlap",),
        description="Largest share of test rows that training rows show, word for word or mostly; above it "
        "there are no scores and no report. What is trained does not depend on it.",
        ge=0,
        lt=1,
    )
