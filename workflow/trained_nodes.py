"""The nodes of training: the adapter, what it starts from, and the merged model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.errors import BuildError
from workflow.node import Node
from workflow.recipe import Recipe
from workflow.recipe.leaf import slice_of
from workflow.recipe.tuning import ROLE, Combination, Combined, Continued, Dora, Factors, Prompt

if TYPE_CHECKING:
    from workflow.graph import Graph


class TrainedNodes:
    """Draws what one recipe trains."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        found: dict[str, Node],
        node: Callable[..., Node],
        other: Callable[[str], Graph],
    ):
        """Draw `recipe` of a folder; `found` holds its shards and model, `node` makes a node.

        `other` draws another recipe.
        """
        self.recipe, self.folder, self.found = recipe, folder, dict(found)
        self.node, self.other = node, other

    def all(self) -> dict[str, Node]:
        """Name -> node: `adapter`, `start` where several are put together first, `merged` if weights change.

        Raises:
            BuildError: An adapter of another recipe does not fit.
        """
        self.found["adapter"] = self._adapter()
        if not isinstance(self.recipe.tuning, Prompt):  # changes no weight: nothing to merge
            self.found["merged"] = self._merged()
        return self.found

    def _adapter(self) -> Node:
        """The weights that training, or putting adapters together, makes."""
        recipe, tuning = self.recipe, self.recipe.tuning
        sections = {"tuning": tuning, "training": recipe.training, "model": recipe.model}
        chosen: dict[str, Any] = {n: slice_of(part, "adapter") for n, part in sections.items() if part}
        if isinstance(tuning, Combined):
            return self._combined(tuning, {"tuning": chosen["tuning"]})
        chosen["deepspeed"] = slice_of(recipe.deepspeed, "adapter") if recipe.deepspeed else None
        inputs = {"shards": self.found["shards_train"], "model": self.found["model"]}
        if isinstance(tuning, Continued) and tuning.initialise:
            start = {"tuning": {"initialise": chosen["tuning"].pop("initialise", None)}}
            if isinstance(tuning.initialise, Combination):
                self.found["start"] = self._combined(tuning.initialise, start, tuning.method == "dora")
                inputs["start"] = self.found["start"]
            else:
                inputs["start"] = self._trained(tuning.initialise.recipe, tuning.method == "dora")
        own = recipe.deepspeed.config if recipe.deepspeed else None
        sources = {"deepspeed": self.folder / own} if own else {}
        return self.node("adapter", slice=chosen, inputs=inputs, sources=sources)

    def _combined(self, wanted: Combination, chosen: dict[str, Any], dora: bool = False) -> Node:
        """Several adapters as one; no rows, no training."""
        if dora:
            raise BuildError("tuning.initialise: dora starts from one adapter; combine lora, then use lora")
        inputs = {ROLE + name: self._trained(name, dora=False) for name in wanted.of}
        return self.node("adapter", slice=chosen, inputs={**inputs, "model": self.found["model"]})

    def _trained(self, name: str, dora: bool) -> Node:
        """The adapter of another recipe, which must be one of the same model."""
        other = self.other(name)
        node, tuning = other.node("adapter"), other.recipe.tuning
        if not isinstance(tuning, Factors | Combined) or dora != isinstance(tuning, Dora):
            kind = "dora" if dora else "lora, rslora, lora_plus, qlora, pissa or combined"
            raise BuildError(
                f"recipe {name} has tuning.method {tuning.method if tuning else None}; its adapter is needed "
                f"as one of {kind}; to train on top of its model, write model.base: {{recipe: {name}}}"
            )
        if other.node("model").address != self.found["model"].address:
            raise BuildError(
                f"the adapter of recipe {name} belongs to another model; give both one model.base"
            )
        return node

    def _merged(self) -> Node:
        assert self.recipe.tuning is not None
        method = self.recipe.tuning.method
        inputs = {"adapter": self.found["adapter"]}
        if method != "full":
            inputs["model"] = self.found["model"]
        chosen = {"method": method} | slice_of(self.recipe.tuning, "merged")
        return self.node("merged", slice=chosen, inputs=inputs)
