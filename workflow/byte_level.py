"""Byte-level tokenizers: which bytes a token stands for, and the proof that no byte of a text was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 8192
"""Tokens that are spelled at once: few enough that what is computed stays in the processor's cache."""


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
        self.lengths = np.array([len(part) for part in parts], np.int32)
        self.starts = np.cumsum(self.lengths, dtype=np.int32) - self.lengths

    @classmethod
    def of(cls, backend: Any) -> TokenBytes | None:
        """The table of a `tokenizers.Tokenizer` whose decoder is plain byte level; else None."""
        if type(backend.decoder).__name__ != "ByteLevel":
            return None
        symbols = {symbol: byte for byte, symbol in byte_symbols().items()}
        known, table = set(symbols), str.maketrans({symbol: chr(byte) for symbol, byte in symbols.items()})
        found = {i: token.content.encode() for i, token in backend.get_added_tokens_decoder().items()}
        for text, number in backend.get_vocab(with_added_tokens=False).items():
            if number not in found:
                if not known.issuperset(text):
                    return None
                found[number] = text.translate(table).encode("latin-1")
        return cls(found)

    def spell(self, ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The bytes of a row of tokens, [bytes]."""
        parts = [self._spell(ids[i : i + AT_ONCE]) for i in range(0, len(ids), AT_ONCE)]
        return np.concatenate(parts) if parts else self.bytes[:0]

    def _spell(self, ids: NDArray[np.int32]) -> NDArray[np.uint8]:
        lengths = self.lengths[ids]
        ends = np.cumsum(lengths, dtype=np.int32)
        places = np.repeat(self.starts[ids] - ends + lengths, lengths)
        places += np.arange(len(places), dtype=np.int32)
        return self.bytes[places]

    def lost(self, ids: NDArray[np.int32], ends: NDArray[np.int64], texts: Sequence[str]) -> list[int]:
        """Which texts are not, byte for byte, what their tokens spell.

        Args:
            ids: Tokens of all texts, one behind another.
            ends: Where each text's tokens end.
            texts: The texts.
        """
        encoded = [text.encode() for text in texts]
        written = np.frombuffer(b"".join(encoded), np.uint8)
        if np.array_equal(written, self.spell(ids)):
            reach = np.concatenate([[0], np.cumsum(self.lengths[ids], dtype=np.int64)])[ends]
            wanted = np.cumsum([len(text) for text in encoded])
            return [int(i) for i in np.flatnonzero(reach != wanted)]
        begins = [0, *ends[:-1].tolist()]
        return [
            i
            for i, (begin, end, text) in enumerate(zip(begins, ends.tolist(), encoded, strict=True))
            if self.spell(ids[begin:end]).tobytes() != text
        ]
