"""The graph of a recipe: which products there are, what decides each, and what each is made from.

Drawing reads the recipe and its sources and writes nothing; `workflow.settle` then writes the plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow.answer_nodes import AnswerNodes
from workflow.data_nodes import DataNodes
from workflow.errors import BuildError
from workflow.model_nodes import untrained
from workflow.node import Node
from workflow.recipe import Recipe, load_recipe, recipe_path
from workflow.recipe.dataset import Dataset
from workflow.recipe.gate import Gate
from workflow.recipe.leaf import slice_of
from workflow.recipe.model import RecipeBase
from workflow.recipe.prompt import VARIANT
from workflow.recipe.tuning import ROLE, Combination, Combined, Continued, Dora, Factors, Prompt
from workflow.rehearsal import REHEARSAL, rehearsed
from workflow.sources import source_digest
from workflow.store.store import Store

ASKED = ("test", "validation")
"""Splits whose rows are answered."""
EXECUTED = ("adapter", "predictions")
"""Products whose jobs are told the recipe's section `execution`; the others cannot depend on it."""


@dataclass(frozen=True)
class Graph:
    """The products of one recipe by the name that users ask for."""

    recipe: Recipe
    products: dict[str, Node]

    def node(self, product: str) -> Node:
        """The node called `product`.

        Raises:
            BuildError: This recipe does not describe such a product.
        """
        if product not in self.products:
            raise BuildError(f"{product}: {_why_not(self.recipe, product)}")
        return self.products[product]

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """Address -> node of all products and of what they are made from, inputs first."""
        found: dict[str, Node] = {}
        for top in self.products.values():
            found |= {node.address: node for node in top.closure(found)}
        return found


def _why_not(recipe: Recipe, product: str) -> str:
    if isinstance(recipe.tuning, Prompt) and product == "merged":
        how = f"{recipe.tuning.method} trains a prompt and no weight of the model"
        return f"{how}: there is nothing to merge, ask for results/<recipe>/adapter"
    sections: dict[str, object] = {
        "tuning": recipe.tuning,
        "dataset.test or dataset.split": recipe.dataset.test or recipe.dataset.split,
        "sampling": recipe.sampling,
        "voting": recipe.voting,
        "scoring": recipe.scoring,
    }
    missing = [name for name, section in sections.items() if section is None]
    return f"the recipe has no such product; it has no {', '.join(missing) or product}"


class Draw:
    """Draws graphs: knows the recipes' folder, the store, and which recipes are being drawn.

    Each recipe and each source file is looked at once: all graphs of one `Draw` show the same moment.
    """

    def __init__(self, store: Store, folder: Path = Path("recipes")):
        """Draw recipes of `folder`; digests of sources are cached in `store`."""
        self.store, self.folder = store, folder
        self.drawing: list[str] = []
        self.graphs: dict[str, Graph] = {}
        self.bases: dict[tuple[str, str, str], Node] = {}
        self._digests: dict[Path, str] = {}

    def recipe(self, name: str) -> Graph:
        """The graph of the recipe called `name`.

        Raises:
            BuildError: The recipe, a source or another recipe it names is wrong.
        """
        if name in self.graphs:
            return self.graphs[name]
        if name in self.drawing:
            raise BuildError(f"recipes name each other in a circle: {' -> '.join([*self.drawing, name])}")
        path = recipe_path(name.removeprefix(REHEARSAL), self.folder)
        self.drawing.append(name)
        try:
            recipe = load_recipe(path)
            if name.startswith(REHEARSAL):
                recipe = rehearsed(recipe, path)
            self.graphs[name] = self._graph(recipe, path)
        finally:
            self.drawing.pop()
        return self.graphs[name]

    def _graph(self, recipe: Recipe, path: Path) -> Graph:
        try:
            return Graph(recipe, _Products(self, recipe, path).all())
        except BuildError as error:
            placed = str(error).startswith(str(path))
            raise BuildError(str(error) if placed else f"{path}: {error}") from None

    def digests(self, sources: dict[str, Path], expected: str | None = None) -> dict[str, str]:
        """Role -> SHA-256 of each source file; one that is not there is known by `expected` alone."""
        return {role: self._digest(path, expected) for role, path in sources.items()}

    def _digest(self, path: Path, expected: str | None) -> str:
        if path not in self._digests:
            if expected and not path.is_file():
                return expected
            self._digests[path] = source_digest(path, self.store.digests)
        return self._digests[path]


class _Products:
    """Builds the nodes of one recipe."""

    def __init__(self, draw: Draw, recipe: Recipe, path: Path):
        self.draw, self.recipe, self.path, self.folder = draw, recipe, path, path.parent

    def all(self) -> dict[str, Node]:
        recipe = self.recipe
        found: dict[str, Node] = {}
        found["tokenizer"], found["model"] = self._tokenizer(), self._model()
        data = DataNodes(recipe.dataset, self.folder, self._node)
        for split in ("train", "test", "validation"):
            if _has_split(recipe.dataset, split):
                found |= data.rows(split)
                found |= self._shards(split, found)
        if "rows_train" in found and "rows_test" in found:
            both = {"train": found["rows_train"], "test": found["rows_test"]}
            refused = slice_of(recipe.gate or Gate(), "overlap")
            found["overlap"] = self._node("overlap", slice=refused, inputs=both)
        if recipe.tuning:
            found["adapter"] = self._adapter(found)
            if not isinstance(recipe.tuning, Prompt):  # changes no weight: nothing to merge
                found["merged"] = self._merged(found)
        if recipe.scoring and "perplexity" in recipe.scoring.metrics and "rows_test" in found:
            found |= self._shards("answers", {**found, "rows_answers": found["rows_test"]})
        if recipe.sampling and "shards_test" in found:
            found |= AnswerNodes(recipe, self.folder, found, self._node, self.draw.recipe).all()
        return found

    def _node(self, product: str, expected: str | None = None, **parts: Any) -> Node:
        digests = self.draw.digests(parts.get("sources", {}), expected)
        execution = self.recipe.execution.model_dump(mode="json") if product in EXECUTED else {}
        return Node(product, digests=digests, execution=execution, recipe=str(self.path), **parts)

    def _shards(self, split: str, found: dict[str, Node]) -> dict[str, Node]:
        """The tokens of a split, and for rows that are to be answered those in other templates too.

        `answers` is no split of its own: test rows with their answers, as training rows have them.
        """
        prompt = self.recipe.prompt
        gate = slice_of(self.recipe.gate or Gate(), "shards")
        templates = {f"shards_{split}": prompt.template}
        inputs = {"rows": found[f"rows_{split}"], "tokenizer": found["tokenizer"]}
        if prompt.examples:
            inputs["examples"] = found["rows_train"]
        others = {}
        if prompt.train_variants and split == "train":
            others = {VARIANT + name: self.folder / path for name, path in prompt.variants.items()}
        if split != "train":  # what only training data can be refused for
            gate = {"max_cut": gate["max_cut"]}
        if split in ASKED:
            templates |= {f"shards_{split}.{name}": path for name, path in prompt.variants.items()}
        chosen = {
            "split": "test" if split in ASKED else "train",
            **slice_of(prompt, "shards"),
            "gate": gate,
        }
        return {
            name: self._node(
                "shards",
                slice=chosen | ({"variant": True} if "." in name else {}),
                inputs=inputs,
                sources={"template": self.folder / template, **others},
            )
            for name, template in templates.items()
        }

    def _base(self, product: str) -> Node:
        """The untrained model, or only its tokenizer: the same sources, another choice of files."""
        known = self.draw.bases
        model = self.recipe.model
        asked = (product, str(self.folder), model.model_dump_json(exclude={"dtype"}))
        if asked not in known:
            known[asked] = untrained(model, product, self.folder, self._node)
        return known[asked]

    def _tokenizer(self) -> Node:
        base = self.recipe.model.base
        if isinstance(base, RecipeBase):
            return self.draw.recipe(base.recipe).node("tokenizer")
        return self._base("tokenizer")

    def _model(self) -> Node:
        base = self.recipe.model.base
        if isinstance(base, RecipeBase):
            return self.draw.recipe(base.recipe).node("merged")
        return self._base("model")

    def _adapter(self, found: dict[str, Node]) -> Node:
        recipe, tuning = self.recipe, self.recipe.tuning
        sections = {"tuning": tuning, "training": recipe.training, "model": recipe.model}
        chosen: dict[str, Any] = {n: slice_of(part, "adapter") for n, part in sections.items() if part}
        if isinstance(tuning, Combined):
            return self._combined(found, tuning, {"tuning": chosen["tuning"]})
        chosen["deepspeed"] = slice_of(recipe.deepspeed, "adapter") if recipe.deepspeed else None
        inputs = {"shards": found["shards_train"], "model": found["model"]}
        if isinstance(tuning, Continued) and tuning.initialise:
            start = {"tuning": {"initialise": chosen["tuning"].pop("initialise", None)}}
            if isinstance(tuning.initialise, Combination):
                found["start"] = self._combined(found, tuning.initialise, start, tuning.method == "dora")
                inputs["start"] = found["start"]
            else:
                inputs["start"] = self._trained(found, tuning.initialise.recipe, tuning.method == "dora")
        own = recipe.deepspeed.config if recipe.deepspeed else None
        sources = {"deepspeed": self.folder / own} if own else {}
        return self._node("adapter", slice=chosen, inputs=inputs, sources=sources)

    def _combined(
        self, found: dict[str, Node], wanted: Combination, chosen: dict[str, Any], dora: bool = False
    ) -> Node:
        """Several adapters as one; no rows, no training."""
        if dora:
            raise BuildError("tuning.initialise: dora starts from one adapter; combine lora, then use lora")
        inputs = {ROLE + name: self._trained(found, name, dora=False) for name in wanted.of}
        return self._node("adapter", slice=chosen, inputs={**inputs, "model": found["model"]})

    def _trained(self, found: dict[str, Node], name: str, dora: bool) -> Node:
        """The adapter of another recipe, which must be one of the same model."""
        other = self.draw.recipe(name)
        node, tuning = other.node("adapter"), other.recipe.tuning
        if not isinstance(tuning, Factors | Combined) or dora != isinstance(tuning, Dora):
            kind = "dora" if dora else "lora, rslora, lora_plus, qlora, pissa or combined"
            raise BuildError(
                f"recipe {name} has tuning.method {tuning.method if tuning else None}; its adapter is needed "
                f"as one of {kind}; to train on top of its model, write model.base: {{recipe: {name}}}"
            )
        if other.node("model").address != found["model"].address:
            raise BuildError(
                f"the adapter of recipe {name} belongs to another model; give both one model.base"
            )
        return node

    def _merged(self, found: dict[str, Node]) -> Node:
        assert self.recipe.tuning is not None
        method = self.recipe.tuning.method
        inputs = {"adapter": found["adapter"]}
        if method != "full":
            inputs["model"] = found["model"]
        chosen = {"method": method} | slice_of(self.recipe.tuning, "merged")
        return self._node("merged", slice=chosen, inputs=inputs)


def _has_split(dataset: Dataset, split: str) -> bool:
    return bool(getattr(dataset, split) or split == "test" and dataset.split)
