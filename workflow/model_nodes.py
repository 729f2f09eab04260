"""The nodes of an untrained model and of its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workflow.models import model_files, tokenizer_files
from workflow.node import Node
from workflow.recipe.model import Model, ScratchBase, StandIn, StandInBase

MakeNode = Callable[..., Node]


def untrained(model: Model, product: str, folder: Path, node: MakeNode) -> Node:
    """The product `model`, or `tokenizer`: the same sources, another choice of files.

    Args:
        model: What the recipe says; no model of another recipe.
        product: `model` or `tokenizer`.
        folder: The recipe's folder.
        node: Makes a node of the recipe.

    Raises:
        BuildError: The model's files are not those of a model.
    """
    if model.is_hub:
        return node(product, slice={"hub": model.base, "revision": model.revision})
    if isinstance(model.base, StandInBase):
        return _stand_in(model.base.stand_in, product, folder, node)
    scratch = isinstance(model.base, ScratchBase)
    place = folder / (model.base.scratch if isinstance(model.base, ScratchBase) else str(model.base))
    choose = tokenizer_files if product == "tokenizer" else model_files
    return node(product, slice={"scratch": scratch}, sources=choose(place, scratch))


def _stand_in(chosen: StandIn, product: str, folder: Path, node: MakeNode) -> Node:
    """A model's own tokenizer is used as it is; its configuration, or its family's, is made small."""
    if chosen.like is None:
        return node(product, slice={"stand_in": chosen.family})
    sources = tokenizer_files(folder / chosen.like)
    own = {"scratch": False} if product == "tokenizer" else {"stand_in": None}
    return node(product, slice=own, sources=sources)
