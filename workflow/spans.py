"""Parts of JSON lines files that are about the same rows: the same lines of each, found without parsing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workflow.errors import BuildError

LINES = 20_000
"""Lines of a part: whatever the number of processes, parts are the same, and so are sums over them."""
_BLOCK = 1 << 22


class Span(NamedTuple):
    """Some lines of a file."""

    begin: int  # offset in bytes
    end: int
    line: int  # number of the first, from 1


def spans(paths: Sequence[Path], lines: int = LINES) -> Iterator[list[Span]]:
    """Part by part, the span of each file; a shorter file has none in the last parts.

    Raises:
        BuildError: A file is missing.
    """
    starts = [_starts(path, lines) for path in paths]
    for part in range(max(len(found) for found in starts) - 1):
        here = [found[part : part + 2] or found[-1:] for found in starts]
        yield [Span(bounds[0], bounds[-1], part * lines + 1) for bounds in here]


def _starts(path: Path, lines: int) -> list[int]:
    """Where each part begins, and where the file ends."""
    found, seen, offset = [0], 0, 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
                found += (offset + ends[lines - 1 - seen % lines :: lines] + 1).tolist()
                seen, offset = seen + len(ends), offset + len(block)
    except FileNotFoundError:
        raise BuildError(f"{path}: no such file; build the product that makes it again") from None
    return found if found[-1] == offset and len(found) > 1 else [*found, offset]
