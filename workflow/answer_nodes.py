"""The nodes behind a model: what it answers, what is voted, scored and reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.node import Node
from workflow.recipe import Recipe
from workflow.recipe.answers import OWN
from workflow.recipe.engines import Endpoint, Engine, Vllm
from workflow.recipe.leaf import slice_of
from workflow.recipe.model import ScratchBase
from workflow.recipe.tuning import Prompt
from workflow.voter_nodes import ANSWERS, VOTER, seed_of_variant, voted_node

if TYPE_CHECKING:
    from workflow.graph import Graph

REPORTED = (
    *("rows_train", "rows_test", "overlap", "tokenizer", "shards_train", "shards_test"),
    *("adapter", "merged"),
    *("base", "greedy", "predictions", "likelihood", "base_likelihood", "voted", "scores"),
)
"""Roles that the report is about."""


GREEDY = {"n": 1, "temperature": 0.0, "top_p": 1.0, "top_k": None, "seed": 0, "logprobs": False}
"""What of a recipe's sampling is set aside for its greedy answers."""


class AnswerNodes:
    """Draws what one recipe asks of its model."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        found: dict[str, Node],
        node: Callable[..., Node],
        other: Callable[[str], Graph],
    ):
        """Draw `recipe` of a folder; `found` holds its rows, shards and models, `node` makes a node.

        `other` draws another recipe.
        """
        self.recipe, self.found, self.node, self.other = recipe, dict(found), node, other
        self.folder = folder

    def all(self) -> dict[str, Node]:
        """Name -> node: predictions and, as far as the recipe says so, votes, scores and the report."""
        recipe, found = self.recipe, self.found
        rows = found["rows_test"]
        for name in [name for name in found if name.startswith("shards_")]:
            split, dot, variant = name.removeprefix("shards_").partition(".")
            if split in ANSWERS:
                found[ANSWERS[split] + dot + variant] = self._answers(shards=name)
        draws = found["predictions"]
        if recipe.voting:
            found["voted"] = voted_node(recipe, found, self.node, self.other)
        if recipe.scoring:
            found["scores"] = self._scores(draws, rows)
            found["report"] = self._report()
        return found

    def _answers(self, greedy: bool = False, untuned: bool = False, shards: str = "shards_test") -> Node:
        """What the recipe's model, or the `untuned` base, answers to the rows of `shards`."""
        sampling, rendered = self.recipe.sampling, self.found[shards]
        assert sampling is not None
        chosen: dict[str, Any] = {"sampling": slice_of(sampling, "predictions")}
        if variant := shards.partition(".")[2]:
            chosen["sampling"]["seed"] = seed_of_variant(sampling.seed, variant)
        if greedy:
            chosen["sampling"] |= GREEDY
        engine = _of_base(sampling.engine) if untuned else sampling.engine
        chosen["sampling"]["engine"] = slice_of(engine, "predictions")
        inputs, sources = {"shards": rendered, **self._answering(engine, untuned)}, {}
        if isinstance(engine, Endpoint) and engine.api == "chat":  # messages, made as the shards were
            chosen["prompt"] = {name: value for name, value in rendered.slice.items() if name != "gate"}
            inputs |= rendered.inputs
            sources["template"] = rendered.sources["template"]
        constraint = sampling.constraint
        if constraint and constraint.choice == "options":
            inputs["rows"] = rendered.inputs["rows"]
        if constraint and constraint.json_schema:
            sources["json_schema"] = self.folder / constraint.json_schema
        return self.node("predictions", slice=chosen, inputs=inputs, sources=sources)

    def _answering(self, engine: Engine, untuned: bool) -> dict[str, Node]:
        """The model, and the adapter where it stays beside; nothing for an endpoint."""
        if isinstance(engine, Endpoint):
            return {}
        if untuned or "adapter" not in self.found:
            return {"model": self.found["model"]}
        if isinstance(self.recipe.tuning, Prompt) or engine.weights == "adapter":
            return {"model": self.found["model"], "adapter": self.found["adapter"]}
        return {"model": self.found["merged"]}

    def _scores(self, draws: Node, rows: Node) -> Node:
        recipe, found = self.recipe, self.found
        assert recipe.scoring is not None
        chosen, inputs = slice_of(recipe.scoring, "scores"), {"draws": draws, "rows": rows}
        if recipe.voting and "accuracy" in recipe.scoring.metrics:
            inputs["voted"] = found["voted"]
            chosen |= slice_of(recipe.voting, "scores")
        if "overlap" in found:
            inputs["overlap"] = found["overlap"]  # no scores of rows that the recipe refuses
        inputs["greedy"] = found["greedy"] = self._answers(greedy=True)
        if "base" in recipe.scoring.compare:
            inputs["base"] = found["base"] = self._answers(greedy=True, untuned=True)
        if "shards_answers" in found:
            inputs["likelihood"] = found["likelihood"] = self._likelihood(found.get("merged", found["model"]))
            if "base" in inputs:
                untuned = self._likelihood(found["model"], untuned=True)
                inputs["base_likelihood"] = found["base_likelihood"] = untuned
        schema = recipe.scoring.answer_schema
        sources = {"answer_schema": self.folder / schema} if schema else {}
        return self.node("scores", slice=chosen, inputs=inputs, sources=sources)

    def _likelihood(self, model: Node, untuned: bool = False) -> Node:
        """What the answers of the test rows are worth to a model, tokenized as training rows are."""
        inputs = {"shards": self.found["shards_answers"], "model": model}
        if isinstance(self.recipe.tuning, Prompt) and not untuned:
            inputs["adapter"] = self.found["adapter"]
        return self.node("likelihood", slice={}, inputs=inputs)

    def _report(self) -> Node:
        shown = self.recipe.model_dump(mode="json", exclude={"execution"}, exclude_none=True)
        inputs = {role: self.found[role] for role in REPORTED if role in self.found}
        voters = self.found["voted"].inputs if "voted" in self.found else {}
        inputs |= {
            role: node for role, node in voters.items() if role.startswith(VOTER) and role != VOTER + OWN
        }
        return self.node("report", slice={"recipe": shown}, inputs=inputs)


def _of_base(engine: Engine) -> Engine:
    """What the untuned base answers by: the same engine, but an endpoint has no such model."""
    if isinstance(engine, Endpoint):
        return Vllm(name="vllm")
    return engine.model_copy(update={"weights": "merged"})


def served_node(recipe: Recipe, folder: Path, found: dict[str, Node], node: Callable[..., Node]) -> Node:
    """The server of a recipe's model, or of the base where nothing is tuned."""
    assert recipe.serving
    inputs = {"tokenizer": found["tokenizer"], "model": found["model"]}
    if "merged" in found:
        inputs |= {"model": found["merged"], "base": found["model"]}
    if isinstance(recipe.model.base, ScratchBase):
        inputs.pop("base", None)  # it has no weights to answer with
    return node(
        "served",
        slice={"serving": slice_of(recipe.serving, "served"), "prompt": slice_of(recipe.prompt, "shards")},
        inputs=inputs,
        sources={"template": folder / recipe.prompt.template},
    )
