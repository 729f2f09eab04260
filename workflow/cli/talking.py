"""A conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from workflow.errors import BuildError
from workflow.prompts import Message
from workflow.serving.asking import client, streamed

NEW = "/new"


def talk(url: str, model: str, most: int | None) -> None:
    """Ask what the user types, with all that was said before, and show answers as they come.

    Args:
        url: The server's address, without `/v1`.
        model: The model's name there.
        most: Longest answer in tokens; None: the server's own limit.

    Raises:
        BuildError: The server is not there, or refuses.
    """
    print(f"{model}: Ctrl-D ends the conversation, {NEW} begins another", file=sys.stderr)
    limit, said = {"max_tokens": most} if most else {}, list[Message]()
    with client(url) as api, suppress(EOFError):
        while True:
            line = input("> " if sys.stdin.isatty() else "")
            if line.strip() == NEW:
                said = []
            elif line.strip():
                said.append({"role": "user", "content": line})
                answer = _shown(streamed(api, model, said, **limit), url)
                said.append({"role": "assistant", "content": answer})


def _shown(pieces: Iterator[str], url: str) -> str:
    """Print an answer as it comes; returns all of it."""
    from openai import APIError

    answer = ""
    try:
        for piece in pieces:
            answer += piece
            print(piece, end="", flush=True)
    except APIError as error:
        raise BuildError(f"{url}: {error.message}") from None
    print(flush=True)
    return answer
