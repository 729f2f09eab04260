"""Rows as the model sees them, token by token, the trained ones marked: in a terminal and in the report."""

from __future__ import annotations

import hashlib
import heapq
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow.tokens import TokenRow, read_rows


@dataclass(frozen=True)
class Piece:
    """One token's text, or that of several where only together they make characters."""

    text: str
    trained: bool


def first_rows(folder: Path, count: int) -> list[TokenRow]:
    """The rows of a shards folder whose ids have the smallest digests: growing data keeps earlier picks."""
    return heapq.nsmallest(count, read_rows(folder), key=lambda row: digest_of_id(row.id))


def digest_of_id(id: str) -> bytes:
    """What rows are chosen by, where a few are to be shown."""
    return hashlib.blake2b(id.encode("utf-8", "replace"), digest_size=16).digest()


def pieces(row: TokenRow, backend: Any) -> list[Piece]:
    """A row's text, cut where its tokens are; no two pieces in one token, and none trained in part."""
    found: list[Piece] = []
    for ids, trained in _stretches(row):
        found += [Piece(text, trained) for text in _texts(ids, backend)]
    return found


def _stretches(row: TokenRow) -> Iterator[tuple[list[int], bool]]:
    """Tokens next to each other that are all trained, or none."""
    begin, trained = 0, row.trained.tolist()
    ids = row.input_ids.tolist()
    for end in range(1, len(ids) + 1):
        if end == len(ids) or trained[end] != trained[begin]:
            yield ids[begin:end], bool(trained[begin])
            begin = end


def _texts(ids: Sequence[int], backend: Any) -> Iterator[str]:
    from tokenizers.decoders import DecodeStream

    stream, waiting = DecodeStream(skip_special_tokens=False), list[int]()
    for token in ids:
        waiting.append(token)
        if text := stream.step(backend, token):
            yield text
            waiting = []
    if waiting:  # bytes that make no whole character
        yield backend.decode(waiting, skip_special_tokens=False)


def visible(text: str) -> str:
    """A text in which nothing is hidden: line ends have a sign, what a terminal would obey is spelt out."""
    return "".join("↵\n" if c == "\n" else _spelt(c) if _hidden(c) else c for c in text)


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode()
