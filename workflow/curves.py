"""What votes of fewer draws, and without a voter, would be worth: the records in curves.json and scores.json.

They are of `voted`, so they have its own bootstrap: 2,000 resamples of problems, seed 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from workflow.errors import BuildError
from workflow.record import Result

CURVES = "curves.json"


class Point(Result):
    """The vote of k draws (maj@k): its mean accuracy over sets of k draws and over rows."""

    k: int = Field(description="Draws that vote, of all voters' together.", ge=1)
    accuracy: float = Field(description="Share of right answers, 0 to 1; no answer is wrong.", ge=0, le=1)
    low: float = Field(description="2.5 % quantile over resampled problems.", ge=0, le=1)
    high: float = Field(description="97.5 % quantile of the same.", ge=0, le=1)


class Voter(Result):
    """What one voter adds."""

    name: str = Field(description="`own`, a variant of the prompt, a member, or `member/variant`.")
    draws: int = Field(description="Draws per row.", ge=1)
    weight: float | None = Field(
        description="What each of its draws counts; null: every draw has a weight of its own.", gt=0
    )
    accuracy: float = Field(description="Share of its draws that are right, 0 to 1.", ge=0, le=1)
    gain: float | None = Field(
        description="Accuracy of the vote less that of the vote without it; null for the only voter.",
        ge=-1,
        le=1,
    )
    low: float | None = Field(description="2.5 % quantile of the gain over resampled problems.", ge=-1, le=1)
    high: float | None = Field(description="97.5 % quantile of the same.", ge=-1, le=1)


class Curves(Result):
    """curves.json: how the vote depends on the number of draws and on who votes, over the scored rows."""

    rows: int = Field(description="Rows with a known gold answer.", ge=1)
    problems: int = Field(description="Problems, which are resampled; a row of none is one.", ge=1)
    draws: int = Field(description="Draws per row, of all voters.", ge=1)
    method: Literal["exact", "enumerated", "sampled"] = Field(
        description="How the mean over all sets of k draws is found. `exact`: by combinatorics; "
        "`enumerated`: each set is voted; `sampled`: `subsets` of them are, drawn by a seed. In each a tie "
        "counts the share of the tied answers that are right; with `ties: abstain` it is wrong."
    )
    subsets: int | None = Field(description="Sets of each size that are voted, where sampled.", ge=1)
    points: list[Point] = Field(description="By rising k; the last is of all draws.", min_length=1)
    agreement: float = Field(description="Mean agreement of the voted lines, 0 to 1.", ge=0, le=1)
    voters: list[Voter] = Field(description="In the order in which they vote.", min_length=1)


def read_curves(voted: Path) -> Curves | None:
    """The curves in a folder of the product `voted`; None where no row has a known answer.

    Raises:
        BuildError: The file is missing or damaged.
    """
    path = voted / CURVES
    try:
        body = path.read_bytes()
        return None if body == b"null\n" else Curves.model_validate_json(body, strict=True)
    except (OSError, ValidationError):
        raise BuildError(f"{path}: missing or damaged; vote again") from None
