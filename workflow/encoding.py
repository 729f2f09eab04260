"""Texts -> token ids, proven to lose nothing; by gigatoken where that is proven to give the same ids.

HF tokenizers decides what is right. gigatoken, where it is installed and knows the tokenizer, is some ten
times as fast; texts of every batch are encoded by both, and one difference ends its use (`Unequal`).
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workflow.byte_level import TokenBytes
from workflow.errors import BuildError

SAMPLE = 256
"""One text in so many is encoded by both back-ends, and the first of every batch."""


MANY = 64
"""Texts for which it pays to prepare gigatoken and the table of what tokens spell."""


def backend_of(tokenizer: Path) -> Any:
    """The `tokenizers.Tokenizer` in a folder of the product `tokenizer`.

    Raises:
        BuildError: The file is damaged.
    """
    from tokenizers import Tokenizer

    path = tokenizer / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise BuildError(f"{path}: damaged ({error}); build again") from None


class Unequal(Exception):
    """gigatoken gave other ids than HF tokenizers."""


class Encoded(NamedTuple):
    """Tokens of several texts."""

    ids: NDArray[np.int32]  # [tokens], one text behind another
    ends: NDArray[np.int64]  # [texts], where each text's tokens end

    def rows(self) -> list[NDArray[np.int32]]:
        """The tokens of each text."""
        begins = [0, *self.ends[:-1].tolist()]
        return [self.ids[a:b] for a, b in zip(begins, self.ends.tolist(), strict=True)]


class Encoder:
    """Encodes with a `tokenizers.Tokenizer`, or with gigatoken in its place."""

    def __init__(self, backend: Any, fast: bool = False):
        """Encode as `backend` does; `fast`: by gigatoken if possible."""
        self.backend, self.fast = backend, fast

    @cached_property
    def table(self) -> TokenBytes | None:
        """What each token spells, if tokens spell bytes."""
        return TokenBytes.of(self.backend)

    @cached_property
    def gigatoken(self) -> Any:
        """gigatoken's form of the tokenizer, or None."""
        return _gigatoken(self.backend) if self.fast and self.table else None

    def prepare(self) -> None:
        """Load what many texts will need: processes that are forked then share it."""
        _ = self.table, self.gigatoken

    def encode(self, texts: Sequence[str], rows: Sequence[str]) -> Encoded:
        """Token ids of each text, special tokens in it recognised, none added.

        Raises:
            BuildError: The tokenizer loses something of a text.
            Unequal: gigatoken is not to be used for these texts.
        """
        if not texts:
            return Encoded(np.zeros(0, np.int32), np.zeros(0, np.int64))
        many = len(texts) >= MANY
        if many and self.gigatoken:
            encoded = self._quickly(texts)
            if encoded is not None:
                return encoded
        encoded = self._encode(texts)
        suspects = self.table.lost(*encoded, texts) if many and self.table else range(len(texts))
        if suspects:
            self._refuse_losses(encoded.rows(), texts, rows, suspects)
        return encoded

    def _encode(self, texts: Sequence[str]) -> Encoded:
        found = [e.ids for e in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        ends = np.cumsum([len(ids) for ids in found], dtype=np.int64)
        return Encoded(np.fromiter(chain.from_iterable(found), np.int32, int(ends[-1])), ends)

    def _quickly(self, texts: Sequence[str]) -> Encoded | None:
        """By gigatoken; None if a text is not exactly what its tokens spell, as after Unicode composition."""
        assert self.gigatoken and self.table
        found = self.gigatoken.encode_batch(list(texts), parallel=False).layout
        ends = np.asarray(found.offsets)[1:].astype(np.int64)
        encoded = Encoded(np.asarray(found.content.data)[: ends[-1]].astype(np.int32), ends)
        if self.table.lost(*encoded, texts):
            return None
        sample = [i for i, text in enumerate(texts) if not i or not zlib.crc32(text.encode()) % SAMPLE]
        wanted, ids = self._encode([texts[i] for i in sample]).rows(), encoded.rows()
        if not all(np.array_equal(ids[i], wanted[k]) for k, i in enumerate(sample)):
            raise Unequal
        return encoded

    def _refuse_losses(
        self, ids: list[NDArray[np.int32]], texts: Sequence[str], rows: Sequence[str], suspects: Sequence[int]
    ) -> None:
        decoded = self.backend.decode_batch([ids[i].tolist() for i in suspects], skip_special_tokens=False)
        for i, back in zip(suspects, decoded, strict=True):
            if texts[i] != back and not _same_text(texts[i], back):
                lost = _lost(texts[i], back)
                raise BuildError(f"row {rows[i]}: the tokenizer loses {lost}; use another tokenizer")


def _gigatoken(backend: Any) -> Any:
    """gigatoken's form of a tokenizer, or None: it is not installed, or does not know this one."""
    try:
        import gigatoken

        return gigatoken.Tokenizer.from_json(backend.to_str())
    except Exception:  # it says in many ways what it cannot do, and HF tokenizers can do all of it
        return None


def _same_text(text: str, back: str) -> bool:
    """Equal up to Unicode composition (many tokenizers apply NFC) and one leading space (SentencePiece)."""
    return unicodedata.normalize("NFC", text) in (back, unicodedata.normalize("NFC", back).removeprefix(" "))


def _lost(text: str, back: str) -> str:
    missing = [character for character in dict.fromkeys(text) if character not in back]
    if missing:
        return "the characters " + " ".join(missing[:8])
    return f"text: {text[:30]!r} comes back as {back[:30]!r}"
