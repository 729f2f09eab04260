"""Conversations as lists of turns: ShareGPT's, OpenAI's messages, and what resembles them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from workflow.formats.record import fields_of, missing, value_of
from workflow.formats.row import BadRow, Row, Turn, conversation
from workflow.recipe.formats import MessagesSource, ShareGptSource, Turns

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function_response", "function"), "tool"),
}
"""Names of roles in the wild -> ours."""


def rows(record: Any, source: ShareGptSource | MessagesSource) -> Iterator[Row]:
    """One conversation per record; a system turn in front goes to the prompt.

    Raises:
        BadRow: The list, a role or a text is missing or of no known kind, or the order is impossible.
    """
    record = fields_of(record)
    prompt = {"system": "", **{name: value_of(record, column) for name, column in source.prompt.items()}}
    if isinstance(source, MessagesSource) and "tools" not in prompt:
        prompt["tools"] = record.get("tools") or []
    turns = _turns(record, source.turns)
    if turns and turns[0]["role"] == "system":
        if prompt["system"]:
            raise BadRow("system: the row has a system turn and the column of `prompt.system`; use one")
        prompt["system"] = turns.pop(0)["content"]
    if source.turns.leading == "drop":
        while turns and turns[0]["role"] != "user":
            turns.pop(0)
    for turn in turns:
        if turn["role"] == "system":
            raise BadRow(f"{source.turns.column}: a system turn stands behind others; move it to the front")
    yield conversation(turns, prompt)


def _turns(record: dict[str, Any], spec: Turns) -> list[Turn]:
    found = value_of(record, spec.column)
    if not isinstance(found, list):
        raise BadRow(f"{spec.column}: must be a list of turns, not {type(found).__name__}")
    turns = []
    roles = {**ROLES, **spec.roles} if spec.roles else ROLES
    key, content = spec.role, spec.content
    for i, turn in enumerate(found):
        if not isinstance(turn, dict):
            raise BadRow(f"{spec.column}[{i}]: must be an object, not {type(turn).__name__}")
        role = roles.get(str(turn.get(key))) if key else ("user", "assistant")[i % 2]
        text = turn.get(content)
        if role is None or not isinstance(text, str) or "weight" in turn or turn.get("tool_calls"):
            turns.append(_unusual(turn, spec, roles, f"{spec.column}[{i}]", role))
        else:
            turns.append({"role": role, "content": text})
    return turns


def _unusual(turn: Turn, spec: Turns, roles: dict[str, Any], place: str, role: str | None) -> Turn:
    """A turn with a weight or with tool calls for a text, or the reason why it is none."""
    if role is None:
        if spec.role not in turn:
            raise BadRow(f"{place}.{missing(turn, str(spec.role))}")
        known = ", ".join(sorted(roles))
        raise BadRow(
            f"{place}.{spec.role}: unknown role {turn[spec.role]!r}; known: {known}; see `turns.roles`"
        )
    text = turn.get(spec.content)
    if not text and turn.get("tool_calls"):
        text = _calls(turn["tool_calls"], place)
    elif turn.get("tool_calls"):
        raise BadRow(f"{place}: has a text and tool calls; split it in two turns")
    if text is None:
        raise BadRow(f"{place}.{missing(turn, spec.content)}")
    if not isinstance(text, str):
        raise BadRow(f"{place}.{spec.content}: must be text, not {type(text).__name__}")
    weight = turn.get("weight")
    if weight not in (None, 0, 1):
        raise BadRow(f"{place}.weight: must be 0 or 1, not {weight!r}")
    return {"role": role, "content": text} | ({} if weight is None else {"weight": int(weight)})


def _calls(calls: Any, place: str) -> str:
    """Tool calls as JSON text: `{"name": ..., "arguments": {...}}`, or a list of these."""
    try:
        found = [
            {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
            for call in calls
        ]
    except (TypeError, KeyError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadRow(f"{place}.tool_calls: not {{function: {{name, arguments}}}} ({reason})") from None
    return json.dumps(found[0] if len(found) == 1 else found, ensure_ascii=False)
