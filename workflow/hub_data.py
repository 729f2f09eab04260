"""Reading a split of a data set of the Hugging Face hub.

A data set is fetched by commit, or it is a folder laid out like one, whose files are sources like any
other. Either way `datasets` is given a folder, and what it finds there becomes one Parquet file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workflow.errors import BuildError
from workflow.hub import fetch_data
from workflow.sources import DATA
from workflow.store.files import remove_tree

BATCH = 1000
"""Rows that are converted at once."""


def exported(chosen: dict[str, Any], sources: dict[str, Path], work: Path) -> Path:
    """Write one split of a data set to a Parquet file.

    Args:
        chosen: `split`, `config`, and of a data set of the hub `hub` and `revision`.
        sources: Role -> file of a data set that is a folder.
        work: Folder for the file.

    Returns:
        The file, called as the split.

    Raises:
        BuildError: It cannot be fetched, `datasets` cannot read it, or it has no such split.
    """
    if chosen["revision"]:
        folder = fetch_data(chosen["hub"], chosen["revision"])
    else:
        folder = _linked(sources, work / "data")
    out = work / f"{chosen['split']}.parquet"
    try:
        _write(folder, chosen, out)
    except Exception as error:  # the library raises what its readers raise
        reason = (str(error) or type(error).__name__).splitlines()[0].replace(str(folder), "the folder")
        name = chosen.get("hub") or "the data set"
        raise BuildError(
            f"{name}, split {chosen['split']}: {reason}; correct the recipe or the data"
        ) from None
    return out


def _linked(sources: dict[str, Path], folder: Path) -> Path:
    """A folder with just the files whose digests are in the plan."""
    remove_tree(folder)
    for role, path in sources.items():
        link = folder / role.removeprefix(DATA)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder


def _write(folder: Path, chosen: dict[str, Any], out: Path) -> None:
    from datasets import load_dataset
    from pyarrow import parquet

    found = load_dataset(str(folder), chosen["config"], split=chosen["split"], streaming=True)
    writer = None
    for table in found.with_format("arrow").iter(BATCH):
        writer = writer or parquet.ParquetWriter(out, table.schema)
        writer.write_table(table)
    if writer is None:
        raise ValueError("it has no rows")
    writer.close()
