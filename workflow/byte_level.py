"""Byte-level tokenizers: which bytes a token stands for, and the proof that no byte of a text was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray


def byte_symbols() -> dict[int, str]:
    """GPT-2's printable symbol for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in symbols]
    return symbols | {byte: chr(256 + i) for i, byte in enumerate(others)}


class TokenBytes:
    """The bytes of every token: `bytes[starts[t]:starts[t] + lengths[t]]`."""

    def __init__(self, tokens: dict[int, bytes]):
        """Lay the bytes of all tokens one behind another; ids without a token have none."""
        size = max(tokens, default=-1) + 1
        parts = [tokens.get(i, b"") for i in range(size)]
        self.bytes = np.frombuffer(b"".join(parts), np.uint8)
        self.lengths = np.array([len(part) for part in parts], np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths

    @classmethod
    def of(cls, backend: Any) -> TokenBytes | None:
        """The table of a `tokenizers.Tokenizer` whose decoder is plain byte level; else None."""
        settings = orjson.loads(backend.to_str())
        if (settings.get("decoder") or {}).get("type") != "ByteLevel":
            return None
        symbols = {symbol: byte for byte, symbol in byte_symbols().items()}
        known, table = set(symbols), str.maketrans({symbol: chr(byte) for symbol, byte in symbols.items()})
        found = {token["id"]: token["content"].encode() for token in settings["added_tokens"]}
        for text, number in backend.get_vocab(with_added_tokens=False).items():
            if number not in found:
                if not known.issuperset(text):
                    return None
                found[number] = text.translate(table).encode("latin-1")
        return cls(found)

    def spell(self, ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The bytes of a row of tokens, [bytes]."""
        lengths = self.lengths[ids]
        ends = np.cumsum(lengths)
        places = np.repeat(self.starts[ids] - ends + lengths, lengths)
        places += np.arange(len(places))
        return self.bytes[places]

    def lost(self, ids: NDArray[np.int32], ends: NDArray[np.int64], texts: Sequence[str]) -> list[int]:
        """Which texts are not, byte for byte, what their tokens spell.

        Args:
            ids: Tokens of all texts, one behind another.
            ends: Where each text's tokens end.
            texts: The texts.
        """
        written = np.frombuffer("".join(texts).encode(), np.uint8)
        spelled = self.spell(ids)
        if np.array_equal(written, spelled):
            reach = np.concatenate([[0], np.cumsum(self.lengths[ids])])[ends]
            wanted = np.cumsum([len(text.encode()) for text in texts])
            return [int(i) for i in np.flatnonzero(reach != wanted)]
        begins = [0, *ends[:-1].tolist()]
        return [
            i
            for i, (begin, end, text) in enumerate(zip(begins, ends.tolist(), texts, strict=True))
            if self.spell(ids[begin:end]).tobytes() != text.encode()
        ]
