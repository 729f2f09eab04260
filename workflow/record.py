"""The two kinds of records in published files: those that are written, and those that are looked at."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """A published record: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class View(BaseModel):
    """The part of another product's record that is read here; whatever else it holds is skipped unparsed."""

    model_config = ConfigDict(extra="ignore", frozen=True)
