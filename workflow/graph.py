"""The graph of a recipe: which products there are, what decides each, and what each is made from.

Drawing reads the recipe and its sources and writes nothing; `workflow.settle` then writes the plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from workflow.answer_nodes import AnswerNodes, served_node
from workflow.arms import EXPERIMENTS, Laid, lay_out
from workflow.data_nodes import DataNodes, asked_in
from workflow.errors import BuildError
from workflow.experiment_nodes import ExperimentNodes
from workflow.model_nodes import untrained
from workflow.node import Node
from workflow.recipe import Recipe, load_recipe, recipe_path
from workflow.recipe.dataset import Dataset
from workflow.recipe.gate import Gate
from workflow.recipe.leaf import slice_of
from workflow.recipe.model import RecipeBase
from workflow.recipe.prompt import VARIANT
from workflow.recipe.tuning import Prompt
from workflow.rehearsal import REHEARSAL, rehearsed
from workflow.sources import source_digest
from workflow.store.store import Store
from workflow.trained_nodes import TrainedNodes

ASKED = ("test", "validation")
"""Splits whose rows are answered."""
EXECUTED = ("adapter", "predictions", "served")
"""Products whose jobs are told the recipe's section `execution`; the others cannot depend on it."""


@dataclass(frozen=True)
class Graph:
    """The products of one recipe by the name that users ask for.

    That of an experiment names its arms; its recipe is the baseline's.
    """

    recipe: Recipe
    products: dict[str, Node]
    arms: tuple[str, ...] = ()

    @property
    def others(self) -> list[str]:
        """Names of the recipes that this graph is built on."""
        return list(self.arms) or self.recipe.others

    def node(self, product: str) -> Node:
        """The node called `product`.

        Raises:
            BuildError: This recipe does not describe such a product.
        """
        if product not in self.products and self.arms:
            there = ", ".join(self.products)
            raise BuildError(
                f"{product}: an experiment has {there}; name one of its arms: {', '.join(self.arms)}"
            )
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
        "serving": recipe.serving,
    }
    missing = [name for name, section in sections.items() if section is None]
    return f"the recipe has no such product; it has no {', '.join(missing) or product}"


class Draw:
    """Draws graphs: knows the recipes' folder, the store, and which recipes are being drawn.

    Each recipe and each source file is looked at once: all graphs of one `Draw` show the same moment.
    """

    def __init__(self, store: Store, folder: Path = Path("recipes"), absent: bool = False):
        """Draw recipes of `folder`; digests of sources are cached in `store`.

        Args:
            store: The store.
            folder: Where recipes are.
            absent: Whether files may be absent, each taken for the content that its path names: enough to
                compare recipes, not to build.
        """
        self.store, self.folder, self.absent = store, folder, absent
        self.laid: dict[str, Laid] = {}
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
        self.drawing.append(name)
        try:
            self.graphs[name] = self._drawn(name)
        finally:
            self.drawing.pop()
        return self.graphs[name]

    def _drawn(self, name: str) -> Graph:
        bare = name.removeprefix(REHEARSAL)
        if bare.startswith(EXPERIMENTS):
            experiment, _, arm = bare.removeprefix(EXPERIMENTS).partition("/")
            laid = self.experiment(experiment)
            if not arm:
                nodes = ExperimentNodes(self, name, laid)
                return Graph(nodes.baseline.recipe, nodes.all(), tuple(nodes.names.values()))
            recipe, path = laid.recipe(arm)
        else:
            path = recipe_path(bare, self.folder)
            recipe = load_recipe(path)
        return self._graph(recipe if name == bare else rehearsed(recipe, path), path)

    def experiment(self, name: str) -> Laid:
        """The experiment called `name`, as its file has it.

        Raises:
            BuildError: There is none, or it is wrong.
        """
        if name not in self.laid:
            self.laid[name] = lay_out(name, self.folder)
        return self.laid[name]

    def asked(self, name: str, rows: Path) -> Graph:
        """The graph of the recipe called `name` with the rows of another file to answer; scores are left out.

        Raises:
            BuildError: As `recipe`; or the recipe has no rows of one format to answer.
        """
        recipe = self.recipe(name).recipe.model_copy(update={"scoring": None, "serving": None})
        return self._graph(recipe, recipe_path(name.removeprefix(REHEARSAL), self.folder), rows)

    def _graph(self, recipe: Recipe, path: Path, rows: Path | None = None) -> Graph:
        try:
            return Graph(recipe, _Products(self, recipe, path, rows).all())
        except BuildError as error:
            placed = str(error).startswith(str(path))
            raise BuildError(str(error) if placed else f"{path}: {error}") from None

    def digests(self, sources: dict[str, Path], expected: str | None = None) -> dict[str, str]:
        """Role -> SHA-256 of each source file; one that is not there is known by `expected` alone."""
        return {role: self._digest(path, expected) for role, path in sources.items()}

    def _digest(self, path: Path, expected: str | None) -> str:
        if path not in self._digests:
            if (expected or self.absent) and not path.is_file():
                return expected or sha256(str(path).encode()).hexdigest()
            self._digests[path] = source_digest(path, self.store.digests)
        return self._digests[path]


class _Products:
    """Builds the nodes of one recipe."""

    def __init__(self, draw: Draw, recipe: Recipe, path: Path, asked: Path | None = None):
        self.draw, self.recipe, self.path, self.folder = draw, recipe, path, path.parent
        self.asked = asked

    def all(self) -> dict[str, Node]:
        recipe = self.recipe
        found: dict[str, Node] = {}
        found["tokenizer"], found["model"] = self._tokenizer(), self._model()
        asked = asked_in(recipe.dataset, self.asked) if self.asked else recipe.dataset
        for split, dataset in (("train", recipe.dataset), ("test", asked), ("validation", recipe.dataset)):
            if _has_split(dataset, split):
                found |= DataNodes(dataset, self.folder, self._node).rows(split)
                found |= self._shards(split, found)
        if "rows_train" in found and "rows_test" in found:
            both = {"train": found["rows_train"], "test": found["rows_test"]}
            refused = slice_of(recipe.gate or Gate(), "overlap")
            found["overlap"] = self._node("overlap", slice=refused, inputs=both)
        if recipe.tuning:
            found |= TrainedNodes(recipe, self.folder, found, self._node, self.draw.recipe).all()
        if recipe.scoring and "perplexity" in recipe.scoring.metrics and "rows_test" in found:
            found |= self._shards("answers", {**found, "rows_answers": found["rows_test"]})
        if recipe.sampling and "shards_test" in found:
            found |= AnswerNodes(recipe, self.folder, found, self._node, self._voting).all()
        if recipe.serving:
            found["served"] = served_node(recipe, self.folder, found, self._node)
        return found

    def _voting(self, name: str) -> Graph:
        """Another recipe that votes here: on the rows that are asked here."""
        return self.draw.asked(name, self.asked) if self.asked else self.draw.recipe(name)

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


def _has_split(dataset: Dataset, split: str) -> bool:
    return bool(getattr(dataset, split) or split == "test" and dataset.split)
