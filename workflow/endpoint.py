"""Draws by a server with OpenAI's interface: bounded concurrency, limited retries, a key that stays here.

The key comes from the environment and goes into one header; it is cut out of whatever a server says back.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

from workflow.engine import Draw, Question
from workflow.errors import BuildError
from workflow.recipe.answers import Sampling
from workflow.recipe.engines import Endpoint
from workflow.recipe.training import Asking
from workflow.replies import Unusable, body_of, draw_of

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between two attempts, doubled each time
SHOWN = 300  # characters of a server's own words in a message


class EndpointEngine:
    """One server, ready to answer."""

    def __init__(self, endpoint: Endpoint, asking: Asking):
        """Prepare to ask; nothing is sent yet.

        Raises:
            BuildError: The variable that is to hold the key is not set, or holds no key.
        """
        import httpx

        self.endpoint, self.asking = endpoint, asking
        self._key = _key(asking.key_variable)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(asking.timeout, pool=None),
            limits=httpx.Limits(max_connections=asking.requests_at_once),
        )
        self._url = endpoint.base_url.rstrip("/") + (
            "/chat/completions" if endpoint.api == "chat" else "/completions"
        )
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.generated_tokens = self.retries = 0

    def answer(
        self, questions: Iterable[Question], sampling: Sampling, stop_token_ids: list[int]
    ) -> Iterator[list[tuple[Question, Draw]]]:
        """Answer all questions, a bounded number at a time.

        Yields:
            Draws as they come. When one fails no more are asked, but what is under way is still waited for
            and kept: it may have been paid for.

        Raises:
            BuildError: The server refuses a request, or gives no usable answer for too long.
        """
        waiting, failed = iter(questions), None
        running: dict[Future[Draw], Question] = {}
        with ThreadPoolExecutor(self.asking.requests_at_once) as threads:
            try:
                while True:
                    room = 0 if failed else 2 * self.asking.requests_at_once - len(running)
                    for question in islice(waiting, room):
                        body = body_of(question, self.endpoint, sampling, stop_token_ids)
                        running[threads.submit(self._ask, question.row, body)] = question
                    if not running:
                        break
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    pairs = [(running.pop(one), one) for one in done]
                    yield [(question, one.result()) for question, one in pairs if _good(one)]
                    failed = failed or next((one.exception() for _, one in pairs if not _good(one)), None)
                    if failed:
                        self._over.set()
            finally:
                self._over.set()
        if failed:
            raise failed

    def _ask(self, row: str, body: dict[str, Any]) -> Draw:
        """One draw, however many attempts it takes within the limit."""
        began, attempt, reason = time.monotonic(), 0, ""
        while not self._over.is_set():
            try:
                return self._counted(self._attempt(row, body))
            except Unusable as error:
                reason = self._quiet(str(error))
                pause = _pause(attempt, error.retry_after)
            attempt += 1
            if time.monotonic() - began + pause > self.asking.give_up:
                raise BuildError(
                    f"{self._url}: row {row!r}: given up after {attempt} attempts in "
                    f"{time.monotonic() - began:.0f} s, the last: {reason}; build again, what came is kept"
                )
            with self._lock:
                self.retries += 1
            self._over.wait(pause)
        raise BuildError(f"{self._url}: not asked any more")

    def _attempt(self, row: str, body: dict[str, Any]) -> Draw:
        import httpx

        try:
            reply = self._client.post(self._url, json=body)
        except httpx.TransportError as error:
            raise Unusable(f"{type(error).__name__} {error}".strip()) from None
        if reply.status_code in RETRIED:
            raise Unusable(f"status {reply.status_code} {reply.text}", _retry_after(reply.headers))
        if reply.status_code != 200:
            said = f"refused with status {reply.status_code}: {self._quiet(reply.text)}"
            raise BuildError(f"{self._url}: row {row!r}: {said}")
        return draw_of(reply.content, self.endpoint, "logprobs" in body)

    def _counted(self, draw: Draw) -> Draw:
        with self._lock:
            self.generated_tokens += draw.tokens or 0
        return draw

    def _quiet(self, text: str) -> str:
        """What a server says, in one short line without the key."""
        said = text.replace(self._key, "[key]") if self._key else text
        return " ".join(said.split())[:SHOWN]

    def close(self) -> None:
        """Close the connections."""
        self._over.set()
        self._client.close()


def _good(one: Future[Draw]) -> bool:
    return one.exception() is None


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise BuildError(
            f"execution.endpoint.key_variable: the environment has no key in {variable}; export it and build "
            "again"
        )
    return key


def _pause(attempt: int, told: float | None) -> float:
    """Seconds until the next attempt: what the server asks for, or doubling; with jitter ("full", AWS 2015).

    Jitter is only ever added to what a server asks for.
    """
    most = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
    return random.uniform(0, most) if told is None else told + random.uniform(0, FIRST_WAIT)


def _retry_after(headers: Any) -> float | None:
    """Seconds of the header Retry-After; dates, which no such service sends, are passed over."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
