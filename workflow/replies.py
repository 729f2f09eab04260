"""OpenAI's interface in JSON: the body that asks for a draw, and the draw in a reply."""

from __future__ import annotations

import math
from typing import Any

import orjson

from workflow.engine import Draw, Finish, Question, mean_logprob
from workflow.recipe.answers import Sampling
from workflow.recipe.engines import Endpoint

ENDS: dict[str, Finish] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


class Unusable(Exception):
    """No answer, but perhaps the next time; `retry_after`: seconds that the server asks for."""

    def __init__(self, reason: str, retry_after: float | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


def body_of(
    question: Question, endpoint: Endpoint, sampling: Sampling, stop_token_ids: list[int]
) -> dict[str, Any]:
    """The request for one draw; what is at its default and not in the standard is not sent."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if endpoint.seeds and sampling.temperature:
        body["seed"] = question.seed
    if sampling.stop:
        body["stop"] = sampling.stop
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1:
        body["repetition_penalty"] = sampling.repetition_penalty
    return body | (_chat if endpoint.api == "chat" else _tokens)(question, sampling, stop_token_ids)


def _chat(question: Question, sampling: Sampling, _stop_token_ids: list[int]) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": question.messages}
    if sampling.logprobs:
        body["logprobs"] = True
    if question.held:
        schema = {"name": "answer", "schema": question.held["json"], "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _tokens(question: Question, sampling: Sampling, stop_token_ids: list[int]) -> dict[str, Any]:
    """With what vLLM's server knows besides the standard."""
    body: dict[str, Any] = {
        "prompt": question.prompt,
        "stop_token_ids": stop_token_ids,
        "return_token_ids": True,
    }
    if sampling.logprobs:
        body["logprobs"] = 0
    if question.held:
        body["structured_outputs"] = question.held
    return body


def draw_of(content: bytes, endpoint: Endpoint, logprobs: bool) -> Draw:
    """The draw in a reply.

    Raises:
        Unusable: It is not what the interface says.
    """
    try:
        reply = orjson.loads(content)
        (choice,) = reply["choices"]
        chat = endpoint.api == "chat"
        text = (choice["message"]["content"] or "") if chat else choice["text"]
        if not isinstance(text, str):
            raise TypeError("the text is none")
        ids = choice.get("token_ids")
        logprob = _logprob(choice["logprobs"], chat) if logprobs else None
        usage = reply.get("usage") or {}
        counted = None if ids is not None else usage.get("completion_tokens")
        return Draw(
            text,
            None if ids is None else [int(id) for id in ids],
            ENDS[choice["finish_reason"]],
            logprob,
            counted,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = content.decode(errors="replace")  # whole: whoever shows it cuts out the key first
        raise Unusable(f"a reply that is none ({type(error).__name__} {error}): {said}") from None


def _logprob(told: dict[str, Any], chat: bool) -> float:
    values = [token["logprob"] for token in told["content"]] if chat else told["token_logprobs"]
    mean = mean_logprob(math.fsum(values), len(values))
    if not math.isfinite(mean):
        raise ValueError("a log-probability that is no number")
    return mean
