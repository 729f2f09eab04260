"""Formats whose rows are conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from samples import DATA, rows_in, rows_of

from workflow.formats import BadRow, Row
from workflow.formats.record import at

KDCONV = {
    "format": "sharegpt",
    "turns": {"column": "messages", "role": None, "content": "message"},
    "prompt": {"topic": "name"},
}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def said(*turns: tuple[str, str], **source: Any) -> Row:
    record = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    return rows_of(record, format="sharegpt", **source)[0]


def test_qwen_conversations() -> None:
    rows = rows_in("qwen_conversations/test_sampled_qwen.json", format="sharegpt", id="id")
    assert [row.id for row in rows] == ["identity_0", "identity_1"]
    assert rows[0].turns == [user("你好"), assistant("你好！很高兴为你提供帮助。")]
    assert (rows[0].prompt, rows[0].gold, rows[0].target) == (
        {"system": ""},
        ["你好！很高兴为你提供帮助。"],
        {},
    )


def test_tool_calls() -> None:
    rows = rows_in("llamafactory/glaive_toolcall_zh.json", format="sharegpt", prompt={"tools": "tools"})
    assert [turn["role"] for turn in rows[0].turns] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(rows[0].turns[1]["content"])["name"] == "generate_invoice"
    assert json.loads(rows[0].prompt["tools"])[0]["name"] == "generate_invoice"
    assert rows[0].gold == [rows[0].turns[-1]["content"]]


def test_turns_without_roles_alternate() -> None:
    rows = rows_in("kdconv/music.json", **KDCONV)
    given = json.loads((DATA / "kdconv/music.json").read_text())
    assert [len(row.turns) for row in rows] == [18, 18, 20, 20, 20, 20]
    assert [turn["content"] for turn in rows[3].turns] == [turn["message"] for turn in given[3]["messages"]]
    assert {turn["role"] for turn in rows[3].turns[::2]} == {"user"}
    assert {turn["role"] for turn in rows[3].turns[1::2]} == {"assistant"}
    assert rows[0].prompt == {"system": "", "topic": "李宗盛（歌手、音乐制作人）"}


def test_kto_messages() -> None:
    rows = rows_in("llamafactory/kto_en.json", format="messages")
    assert all([turn["role"] for turn in row.turns][-1] == "assistant" for row in rows)
    assert rows[0].prompt == {"system": "", "tools": []}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("human", "user"), ("user", "user"), ("gpt", "assistant"), ("assistant", "assistant"),
        ("model", "assistant"), ("bot", "assistant"), ("function_call", "assistant"),
        ("observation", "tool"), ("tool", "tool"), ("function_response", "tool"),
    ],
)  # fmt: skip
def test_names_of_roles(name: str, role: str) -> None:
    assert said(("user", "q"), (name, "x"), ("gpt", "a")).turns[1]["role"] == role


def test_system_goes_to_the_prompt() -> None:
    row = said(("system", "S"), ("human", "q"), ("gpt", "a"))
    assert (row.prompt, row.turns) == ({"system": "S"}, [user("q"), assistant("a")])
    record = {"s": "S", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
    assert rows_of(record, format="sharegpt", prompt={"system": "s"})[0].prompt == {"system": "S"}
    record["conversations"].insert(0, {"from": "system", "value": "T"})  # type: ignore[attr-defined]
    with pytest.raises(BadRow, match="system: the row has a system turn and the column"):
        rows_of(record, format="sharegpt", prompt={"system": "s"})


def test_turns_behind_the_last_answer_are_left_out() -> None:
    row = said(("human", "q"), ("gpt", "a"), ("human", "thanks"), ("human", "!"))
    assert row.turns == [user("q"), assistant("a")]


def test_leading_turns() -> None:
    turns = (("gpt", "hello"), ("human", "q"), ("gpt", "a"))
    assert said(*turns, turns={"leading": "drop"}).turns == [user("q"), assistant("a")]
    assert said(("system", "S"), *turns, turns={"leading": "drop"}).prompt == {"system": "S"}
    with pytest.raises(BadRow, match=r"the first is the assistant's, not the user's; see `turns\.leading`"):
        said(*turns)


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "turns: there is none of the assistant's"),
        ([{"from": "human", "value": "q"}], "turns: there is none of the assistant's"),
        ("x", "conversations: must be a list of turns, not str"),
        (None, "conversations: missing; the row has conversations"),
        (["x"], r"conversations\[0\]: must be an object, not str"),
        ([{"from": "alien", "value": "q"}], r"conversations\[0\]\.from: unknown role 'alien'; known: .*gpt"),
        ([{"from": ["x"], "value": "q"}], r"conversations\[0\]\.from: unknown role \['x'\]"),
        ([{"role": "user", "value": "q"}], r"conversations\[0\]\.from: missing; the row has role, value"),
        ([{"from": "human", "content": "q"}], r"conversations\[0\]\.value: missing; the row has from, cont"),
        ([{"from": "human", "value": 1}], r"conversations\[0\]\.value: must be text, not int"),
        (
            [
                {"from": "human", "value": "q"},
                {"from": "system", "value": "S"},
                {"from": "gpt", "value": "a"},
            ],
            "conversations: a system turn stands behind others",
        ),
    ],
)
def test_bad_conversations(turns: Any, message: str) -> None:
    with pytest.raises(BadRow, match=message):
        rows_of({"conversations": turns}, format="sharegpt")


def test_roles_of_ones_own() -> None:
    row = said(("人", "q"), ("机", "a"), turns={"roles": {"人": "user", "机": "assistant"}})
    assert row.turns == [user("q"), assistant("a")]


def chat(*messages: dict[str, Any], **more: Any) -> Row:
    return rows_of({"messages": list(messages), **more}, format="messages")[0]


def test_openai_messages() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": "二"}'}}
    row = chat(
        {"role": "developer", "content": "S"},
        user("q"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "x"},
        assistant("a", weight=0),
        user("q2"),
        assistant("b", weight=1),
        tools=[{"name": "add"}],
    )
    assert row.prompt == {"system": "S", "tools": [{"name": "add"}]}
    assert row.turns == [
        user("q"),
        assistant('{"name": "add", "arguments": {"a": 1, "b": "二"}}'),
        {"role": "tool", "content": "3"},
        assistant("a", weight=0),
        user("q2"),
        assistant("b", weight=1),
    ]
    two = chat(user("q"), {"role": "assistant", "content": "", "tool_calls": [call, call]})
    assert [made["name"] for made in json.loads(two.turns[1]["content"])] == ["add", "add"]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "assistant", "content": "a", "weight": 0.5}, r"messages\[1\]\.weight: must be 0 or 1"),
        ({"role": "assistant", "content": "a", "weight": "1"}, r"messages\[1\]\.weight: must be 0 or 1"),
        (
            {"role": "assistant", "content": [{"type": "text"}]},
            r"messages\[1\]\.content: must be text, not list",
        ),
        ({"role": "assistant", "content": None}, r"messages\[1\]\.content: missing"),
        (
            {"role": "assistant", "content": "a", "tool_calls": [1]},
            r"messages\[1\]: has a text and tool calls",
        ),
        ({"role": "assistant", "tool_calls": [1]}, r"messages\[1\]\.tool_calls: not \{function"),
    ],
)
def test_bad_messages(turn: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRow, match=message):
        rows_of({"messages": [user("q"), turn]}, format="messages")


def test_chat_history() -> None:
    record = {"prompt": "q3", "response": "a3", "history": [["q1", "a1"], ["q2", "a2"]]}
    wanted = [user("q1"), assistant("a1"), user("q2"), assistant("a2"), user("q3"), assistant("a3")]
    [row] = rows_of(record, format="chat_history")
    assert (row.turns, row.gold, row.prompt) == (wanted, ["a3"], {"system": ""})
    for empty in ([], None, ""):
        assert rows_of({**record, "history": empty}, format="chat_history")[0].turns == wanted[-2:]
    names = {"prompt_column": "q", "response_column": "a", "history_column": "h"}
    renamed = {"q": "q3", "a": "a3", "h": record["history"]}
    assert rows_of(renamed, format="chat_history", **names)[0].turns == wanted


@pytest.mark.parametrize("history", [{"a": 1}, "q", ["qa"], [["q"]], [["q", None]], [["q", "a", "b"]]])
def test_bad_histories(history: Any) -> None:
    with pytest.raises(BadRow, match=r"history(\[0\])?: must be"):
        rows_of({"prompt": "q", "response": "a", "history": history}, format="chat_history")


def test_alpaca_with_a_history() -> None:
    record = {"instruction": "I", "input": "X", "output": "O", "history": [["q", "a"]]}
    [row] = rows_of(record, format="alpaca", history_column="history")
    assert row.turns == [user("q"), assistant("a"), user("I\nX"), assistant("O")]
    [row] = rows_of({**record, "input": ""}, format="alpaca", history_column="history")
    assert row.turns[2] == user("I")


def test_paths() -> None:
    record = {"a": [{"b": 1}], "a.0.b": 2, "c": {"d": None}, "e.f": None}
    assert (at(record, "a.0.b"), at({"a": [{"b": 1}]}, "a.0.b")) == (2, 1)
    assert [at(record, path) for path in ("a.1.b", "a.x", "c.d.e", "e.f", "x")] == [None] * 5
