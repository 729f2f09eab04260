"""What a served model answers, by the official client, and the checks that it is the trained one."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from workflow.errors import BuildError
from workflow.patterns import compile_pattern
from workflow.prompts import Message
from workflow.serving.record import Reply
from workflow.serving.server import Server, curl
from workflow.serving.template import Dialogue

SECONDS = 600.0
"""Longest time that an answer may take."""


def client(url: str) -> Any:
    """The official client of a server on this machine; no key, no proxy."""
    from openai import DefaultHttpxClient, OpenAI

    direct = DefaultHttpxClient(trust_env=False)
    key = os.environ.get("VLLM_API_KEY", "none")
    return OpenAI(base_url=f"{url}/v1", api_key=key, http_client=direct, timeout=SECONDS)


def user(text: str) -> list[Message]:
    """A conversation that has just begun."""
    return [{"role": "user", "content": text}]


def streamed(api: Any, model: str, messages: list[Message], **asked: Any) -> Iterator[str]:
    """An answer piece by piece."""
    for chunk in api.chat.completions.create(model=model, messages=messages, stream=True, **asked):
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text


def check_server(
    server: Server, dialogue: Dialogue, questions: list[dict[str, Any]], most: int
) -> list[Reply]:
    """Ask every question greedily, in every way that users ask.

    Args:
        server: Serves one model.
        dialogue: How the model was trained to be asked.
        questions: `ask` and `expect` of each.
        most: Longest reply in tokens.

    Raises:
        BuildError: The server has other models or other token ids than it should, answers differently when
            it streams or when curl asks, or an answer is not as expected.
    """
    name = server.spec.name
    with client(server.url) as api:
        there = sorted(model.id for model in api.models.list())
        if there != sorted([name, *server.spec.adapters]):
            raise BuildError(f"the server has the models {', '.join(there)}, not {name}")
        replies = [_reply(api, server, dialogue, question, most) for question in questions]
    _check_curl(server, replies[0], most)
    wrong = [reply for reply in replies if not reply.as_expected]
    if wrong:
        said = "\n".join(f"{r.ask!r} -> {r.reply!r}, without {r.expect!r}" for r in wrong)
        raise BuildError(
            f"serving.questions: not answered as expected; train longer, or correct them:\n{said}"
        )
    return replies


def _reply(api: Any, server: Server, dialogue: Dialogue, question: dict[str, Any], most: int) -> Reply:
    messages, name, ask = user(question["ask"]), server.spec.name, question["ask"]
    greedy: dict[str, Any] = {"temperature": 0, "max_tokens": most}
    found: Any = api.chat.completions.create(model=name, messages=messages, **greedy)
    (choice,), text = found.choices, found.choices[0].message.content or ""
    if (again := "".join(streamed(api, name, messages, **greedy))) != text:
        raise BuildError(
            f"{ask!r} is answered {text!r}, streamed {again!r}; the server is not what it should be"
        )
    ids = dialogue.ids(messages)
    theirs = tokenized(api, server.url, name, messages)
    if theirs != ids or found.usage.prompt_tokens != len(ids):
        raise BuildError(
            f"{ask!r} has {len(ids)} tokens in training, {found.usage.prompt_tokens} in the server ({theirs} "
            f"instead of {ids}); report this"
        )
    expect = question["expect"]
    as_expected = expect is None or bool(compile_pattern(expect).search(text))
    return Reply(
        ask=ask, expect=expect, as_expected=as_expected, reply=text, finish_reason=choice.finish_reason,
        prompt_tokens=len(ids), base_reply=None,
    )  # fmt: skip


def tokenized(api: Any, url: str, name: str, messages: list[Message]) -> list[int]:
    """Token ids that the server makes of a conversation."""
    asked = {"model": name, "messages": messages}
    found: Any = api.with_options(base_url=url).post("/tokenize", body=asked, cast_to=object)
    return list(map(int, found["tokens"]))


def _check_curl(server: Server, reply: Reply, most: int) -> None:
    """Run the line that users are shown, as it stands."""
    line = curl(server.url, server.spec.name, reply.ask, temperature=0, max_tokens=most)
    if not shutil.which("curl"):
        raise BuildError(
            "curl is not installed; the check of a served model runs the line that users are shown"
        )
    done = subprocess.run(
        shlex.split(line), capture_output=True, timeout=SECONDS, env={**os.environ, "no_proxy": "*"}
    )
    try:
        text = json.loads(done.stdout)["choices"][0]["message"]["content"]
    except (ValueError, LookupError):
        text = (done.stdout + done.stderr).decode(errors="replace")[-300:]
    if text != reply.reply:
        raise BuildError(f"{line} gives {text!r}, the client {reply.reply!r}")
