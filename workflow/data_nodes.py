"""The nodes of a recipe's rows: one for each source and split, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workflow.errors import BuildError
from workflow.node import Node
from workflow.recipe.dataset import Dataset, FileSource, MixtureSource, Source
from workflow.recipe.leaf import slice_of
from workflow.recipe.source import HubData, Sample
from workflow.sources import folder_files


def asked_in(dataset: Dataset, rows: Path) -> Dataset:
    """The section of a recipe whose test rows are those of another file, in the format of its own.

    Conditions and samples are left out: every row is wanted. Other steps are part of what a row means.

    Raises:
        BuildError: The recipe's own rows have several formats.
    """
    source = dataset.test or dataset.train
    assert source
    if isinstance(source, MixtureSource):
        raise BuildError("its rows are a mixture of formats; new ones are of one: give dataset.test a file")
    own: dict[str, object] = {"sha256": None, "where": [], "sample": None, "bad_rows": 0}
    new = source.model_copy(update={"path": str(rows.absolute()), **own})
    return dataset.model_copy(update={"train": None, "split": None, "test": new})


class DataNodes:
    """Draws the rows of one recipe."""

    def __init__(self, dataset: Dataset, folder: Path, node: Callable[..., Node]):
        """Draw `dataset`; `node` makes a node, given the digest that a source file is expected to have."""
        self.dataset, self.folder, self.node = dataset, folder, node

    def rows(self, split: str) -> dict[str, Node]:
        """Name -> node: `rows_<split>` and, where they are chosen or put together, what of."""
        found: dict[str, Node] = {}
        top = self._rows_of(split, found)
        return {**found, f"rows_{split}": top}

    def _rows_of(self, split: str, found: dict[str, Node]) -> Node:
        own = "train" if split == "test" and self.dataset.split else split
        source: Source | None = getattr(self.dataset, own)
        assert source is not None
        if not isinstance(source, MixtureSource):
            rows = self._rows(source, split, f"dataset.{own}")
            if not source.sample:
                return rows
            found[f"source_{split}"] = rows
            return self._mixture(source, {"": rows})
        parts = {}
        for name, part in source.sources.items():
            rows = found[f"source_{split}.{name}"] = self._rows(part, split, f"dataset.{own}.sources.{name}")
            if part.sample:
                rows = found[f"sample_{split}.{name}"] = self._mixture(part, {"": rows})
            parts[name] = rows
        return self._mixture(source, parts)

    def _mixture(self, source: FileSource | MixtureSource, parts: dict[str, Node]) -> Node:
        sample = source.sample or Sample.model_construct()
        return self.node("mixture", slice={"sample": slice_of(sample, "mixture")}, inputs=parts)

    def _rows(self, source: FileSource, split: str, place: str) -> Node:
        chosen = slice_of(source, "rows")
        if self.dataset.split and split != "validation":
            chosen["split"] = {**slice_of(self.dataset.split, "rows"), "part": split}
        files = self._files(source.path)
        if isinstance(source.path, HubData) and files:
            del chosen["path"]["hub"]  # a folder is known by its files
        node = self.node("rows", source.sha256, slice=chosen, sources=files)
        if source.sha256 and node.digests["data"] != source.sha256:
            raise BuildError(
                f"{files['data']}: SHA-256 is {node.digests['data']}, but {place}.sha256 says "
                f"{source.sha256}; this is another file: fetch the right one or correct the recipe"
            )
        return node

    def _files(self, path: str | HubData) -> dict[str, Path]:
        """Role -> source file of rows; none of a data set of the hub, whose revision is in the slice."""
        if isinstance(path, str):
            return {"data": self.folder / path}
        return {} if path.revision else folder_files(self.folder / path.hub)
