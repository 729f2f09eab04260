"""Canonical JSON and the two digests: addresses and keys (blake2b-128), file contents (SHA-256)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ADDRESS = r"[0-9a-f]{32}"
"""Pattern of an address or key: 128 bits in hex."""

CHUNK = 1 << 20


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes.

    Raises:
        ValueError: A float is NaN or infinite, which JSON cannot say.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def address_of(value: Any) -> str:
    """blake2b-128 (RFC 7693) of canonical JSON, 32 hex digits."""
    return hashlib.blake2b(canonical(value), digest_size=16).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces of 1 MiB, in hex."""
    state = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            state.update(piece)
    return state.hexdigest()
