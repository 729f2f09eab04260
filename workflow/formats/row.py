"""The one normal form of a row, whatever format it came in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Turn = dict[str, Any]
"""`role` (user, assistant or tool), `content` (text), and where the source gives it `weight` (0 or 1)."""


class BadRow(ValueError):
    """A row that does not have the shape its format promises; the message names the field."""


@dataclass
class Dropped:
    """Stands where a row would, had the recipe not asked to leave it out; reasons are few, to be counted."""

    reason: str


@dataclass(kw_only=True)  # frozen would cost more than reading the row
class Row:
    """A row: what the prompt may show, what only the answer may show, and the accepted answers.

    `turns` is the conversation of a conversational row, up to and including the assistant's last turn;
    `prompt` then holds what belongs to the whole row: its `system` text ("" for none), its tools, ...
    `gold` is empty where no answer is known. `id` is "" until `rows` gives it the digest of the row.
    `group` and `index` say which problem the row belongs to and its position there (None: it has none).
    `rendered` is the user turn as the source has it, where it has.
    """

    gold: list[str] = field(default_factory=list)
    group: str | None = None
    id: str = ""
    index: int | None = 0
    prompt: dict[str, Any]
    rendered: str | None = None
    target: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    # in the order of their names, as canonical JSON has them: orjson writes them as they stand

    def json(self) -> dict[str, Any]:
        """The row as plain JSON."""
        return dict(vars(self))


def conversation(turns: list[Turn], prompt: dict[str, Any] | None = None) -> Row:
    """A conversational row, whose right answer is the assistant's last turn.

    Turns behind that one are left out: there is nothing to learn from them, nor to compare with.

    Raises:
        BadRow: The assistant has no turn, or not the user the first.
    """
    end = len(turns)
    while end and turns[end - 1]["role"] != "assistant":
        end -= 1
    if not end:
        raise BadRow("turns: there is none of the assistant's, so nothing to learn or to compare with")
    if turns[0]["role"] != "user":
        raise BadRow(f"turns: the first is the {turns[0]['role']}'s, not the user's; see `turns.leading`")
    return Row(
        prompt={"system": ""} if prompt is None else prompt,
        gold=[turns[end - 1]["content"]],
        turns=turns[:end],
    )
