"""The recipe section that says what is asked of the served model before anybody else asks it."""

from __future__ import annotations

from pydantic import model_validator

from workflow.patterns import compile_pattern
from workflow.recipe.leaf import Section, leaf


class SmokeQuestion(Section):
    """One question to the served model."""

    ask: str = leaf(of=("served",), description="What a user says, in one message.", min_length=1)
    expect: str | None = leaf(
        None,
        of=("served",),
        description="RE2 pattern, in the simplest case a name, that the greedy reply must hold; else the "
        "build stops.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _is_a_pattern(self) -> SmokeQuestion:
        if self.expect is not None:
            compile_pattern(self.expect)
        return self


class Serving(Section):
    """Questions that the served model is asked, in a server as users start it."""

    questions: list[SmokeQuestion] = leaf(
        of=("served",), description="What is asked, each in a conversation of its own.", min_length=1
    )
    system: str | None = leaf(
        None,
        of=("served",),
        description="System text where a client sends none; default: what the prompt template's block system "
        "makes of a row without one.",
        min_length=1,
    )
    max_tokens: int = leaf(64, of=("served",), description="Longest reply in tokens.", gt=0, le=4096)
    canary: bool = leaf(
        True,
        of=("served",),
        description="Whether a build stops when every reply is the base model's: then most likely the base "
        "model is served.",
    )
