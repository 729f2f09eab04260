"""Tables: CSV and TSV line by line, Parquet in batches of a row group."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.formats.opening import opened

BATCH = 256
"""Rows of a Parquet file that are made into objects at once."""
csv.field_size_limit(1 << 30)


Sized = Iterator[tuple[int, Any, int]]
"""Line, record and size of each row."""


def _csv(path: Path, delimiter: str = ",") -> Sized:
    with io.TextIOWrapper(opened(path), "utf-8-sig", newline="") as file:
        try:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(reader, [])
            if doubled := sorted(name for name in set(names) if names.count(name) > 1):
                raise BuildError(f"{path}:1: two columns are called {doubled[0]!r}")
            line = reader.line_num + 1
            for values in reader:
                if values:  # else an empty line
                    yield line, _table_row(names, values), sum(map(len, values))
                line = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise BuildError(f"{path}: not UTF-8 text (byte {error.start})") from None
        except csv.Error as error:
            raise BuildError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _table_row(names: list[str], values: list[str]) -> dict[str, str] | ValueError:
    if len(values) > len(names):
        return ValueError(f"{len(values)} values for {len(names)} columns")
    return dict(zip(names, values, strict=False))


def _parquet(path: Path) -> Sized:
    """Rows are numbered from 1; a null column is there, with the value null."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches(BATCH, use_threads=False):
                size = batch.nbytes // max(1, len(batch))
                for record in batch.to_pylist():
                    row += 1
                    yield row, record, size
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BuildError(f"{path}: not a Parquet file that can be read ({reason}); fetch it again") from None


READERS: dict[str, Callable[[Path], Sized]] = {
    ".csv": _csv,
    ".tsv": partial(_csv, delimiter="\t"),
    ".parquet": _parquet,
}
"""Ending -> the function that reads such files."""
