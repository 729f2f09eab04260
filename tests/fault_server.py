"""A server with OpenAI's interface that fails as told: what no real server does when it is asked to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Handler"], None]


class FaultServer(ThreadingHTTPServer):
    """Answers with the faults in its list first, then as it should."""

    daemon_threads = True

    def __init__(self, faults: list[Fault]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults, self.lock = list(faults), threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.now = self.most = 0
        self.times: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: FaultServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.times.append(time.monotonic())
            server.bodies.append(body)
            server.keys.append(self.headers.get("authorization"))
            server.now += 1
            server.most = max(server.most, server.now)
            fault = server.faults.pop(0) if server.faults else None
        try:
            time.sleep(0.01)
            fault(self) if fault else self.reply(200, self.good(body))
        finally:
            with server.lock:
                server.now -= 1

    def good(self, body: dict[str, Any]) -> bytes:
        chat = self.path.endswith("/chat/completions")
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        text = f"{asked} {body.get('seed')}"
        told = {"message": {"content": text}} if chat else {"text": text}
        choice = {**told, "finish_reason": "stop"}
        if body.get("logprobs") is not None:
            values = [-0.5, -1.0, -0.25]
            content = [{"token": "x", "logprob": value} for value in values]
            choice["logprobs"] = {"content": content} if chat else {"token_logprobs": values}
        return json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}).encode()

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def status(code: int, text: str = "no", **headers: str) -> Fault:
    return lambda handler: handler.reply(code, text.encode(), **headers)


def garbage(text: str) -> Fault:
    return lambda handler: handler.reply(200, text.encode())


def hang(handler: Handler) -> None:
    time.sleep(1.5)


def hang_up(handler: Handler) -> None:
    handler.connection.close()


def cut(handler: Handler) -> None:
    """Less than what the header promises."""
    handler.send_response(200)
    handler.send_header("content-length", "999")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.wfile.flush()
    handler.connection.close()


def echo_key(code: int) -> Fault:
    return lambda handler: handler.reply(code, f"your {handler.headers['authorization']} is bad".encode())


@contextmanager
def serving(*faults: Fault) -> Iterator[FaultServer]:
    server = FaultServer(list(faults))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
