"""Stop strings of a recipe as a server's default: vLLM takes them from requests alone."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

VARIABLE = "TUNEMAKE_STOP"
"""Environment variable with the stop strings, as a JSON list."""
PATHS = ("/v1/chat/completions", "/v1/completions")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class DefaultStops:
    """ASGI middleware: adds the recipe's stop strings to what a request says itself."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]):
        """Stand before `app`; vLLM calls this, with nothing else to tell."""
        self.app, self.stop = app, list(map(str, json.loads(os.environ[VARIABLE])))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, its body changed if it asks for an answer."""
        if scope["type"] != "http" or scope.get("path") not in PATHS:
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return None
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body, given = with_stops(body, self.stop), False

        async def once() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        return await self.app({**scope, "headers": headers}, once, send)


def with_stops(body: bytes, stop: list[str]) -> bytes:
    """A request's JSON with more stop strings; what is no such JSON stays as it is, for vLLM to refuse."""
    try:
        asked = json.loads(body)
        own = asked.get("stop") or []
        own = [own] if isinstance(own, str) else own
        asked["stop"] = [*own, *(text for text in stop if text not in own)]
    except (ValueError, AttributeError, TypeError):
        return body
    return json.dumps(asked).encode()
