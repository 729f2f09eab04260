"""Opening a data file as it is, or out of its gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from workflow.errors import BuildError


def is_gzip(path: Path) -> bool:
    """Whether the file's name says that it is compressed."""
    return path.suffix.lower() == ".gz"


def ending(path: Path) -> str:
    """The ending that says the format: `.json` for `rows.JSON.gz`."""
    return (path.with_suffix("") if is_gzip(path) else path).suffix.lower()


def opened(path: Path) -> IO[bytes]:
    """The file's bytes, uncompressed."""
    if is_gzip(path):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn what a damaged gzip file raises in the block into one line.

    Raises:
        BuildError: The file is no gzip file, cut off, or damaged.
    """
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BuildError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
