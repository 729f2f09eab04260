"""What the product `served` publishes: facts that the same model gives again."""

from __future__ import annotations

from pydantic import Field

from workflow.record import Result

SERVED = "served.json"


class Reply(Result):
    """One question and what came of it."""

    ask: str = Field(description="What a user said.")
    reply: str = Field(
        description="The greedy reply of the served model; streamed and by curl it is the same."
    )
    finish_reason: str = Field(description="`stop`, or `length` when serving.max_tokens ended it.")
    expect: str | None = Field(description="RE2 pattern that the reply must hold.")
    as_expected: bool = Field(description="Whether it does; true where nothing is expected.")
    prompt_tokens: int = Field(
        description="Tokens of the question as training renders it; the server's ids are the very same.", gt=0
    )
    base_reply: str | None = Field(
        description="The greedy reply of the model before training; null: there is no other model."
    )


class ServedRecord(Result):
    """What a server with the trained model was asked, and answered."""

    system: str = Field(description="System text where a client sends none; empty: none.")
    stop: list[str] = Field(description="Strings that end an answer, besides the stop tokens.")
    stop_token_ids: list[int] = Field(description="Tokens that end an answer.")
    replies: list[Reply] = Field(description="One for each question of the recipe.", min_length=1)
    differing: int | None = Field(
        description="Replies that are not the base model's; null: there is no other model.", ge=0
    )
