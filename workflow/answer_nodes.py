"""The nodes behind a model: what it answers, what is voted, scored and reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from workflow.node import Node
from workflow.recipe import Recipe
from workflow.recipe.answers import OWN
from workflow.recipe.leaf import slice_of
from workflow.recipe.tuning import Prompt
from workflow.voter_nodes import ANSWERS, VOTER, voted_node

if TYPE_CHECKING:
    from workflow.graph import Graph

REPORTED = (
    *("rows_train", "rows_test", "overlap", "tokenizer", "shards_train", "shards_test"),
    *("adapter", "merged"),
    *("base", "greedy", "predictions", "likelihood", "base_likelihood", "voted", "scores"),
)
"""Roles that the report is about."""


class AnswerNodes:
    """Draws what one recipe asks of its model."""

    def __init__(
        self,
        recipe: Recipe,
        found: dict[str, Node],
        node: Callable[..., Node],
        folder: Path,
        other: Callable[[str], Graph],
    ):
        """Draw `recipe` of `folder`; `found` holds its rows, shards and models, `node` makes a node.

        `other` draws another recipe.
        """
        self.recipe, self.found, self.node = recipe, dict(found), node
        self.folder, self.other = folder, other

    def all(self) -> dict[str, Node]:
        """Name -> node: predictions and, as far as the recipe says so, votes, scores and the report."""
        recipe, found = self.recipe, self.found
        rows = found["rows_test"]
        answering = found["merged" if "merged" in found else "model"]
        for name in [name for name in found if name.startswith("shards_")]:
            split, dot, variant = name.removeprefix("shards_").partition(".")
            if split in ANSWERS:
                found[ANSWERS[split] + dot + variant] = self._answers(answering, shards=name)
        draws = found["predictions"]
        if recipe.voting:
            found["voted"] = voted_node(recipe, found, self.node, self.other)
        if recipe.scoring:
            found["scores"] = self._scores(draws, rows)
            found["report"] = self._report()
        return found

    def _answers(
        self, model: Node, greedy: bool = False, untuned: bool = False, shards: str = "shards_test"
    ) -> Node:
        """What a model answers to the rows of `shards`; with a trained prompt beside it unless `untuned`."""
        assert self.recipe.sampling is not None
        sampling = slice_of(self.recipe.sampling, "predictions")
        if greedy:
            sampling |= {
                "n": 1,
                "temperature": 0.0,
                "top_p": 1.0,
                "top_k": None,
                "seed": 0,
                "logprobs": False,
            }
        inputs = {"shards": self.found[shards], "model": model}
        if isinstance(self.recipe.tuning, Prompt) and not untuned:
            inputs["adapter"] = self.found["adapter"]
        return self.node("predictions", slice={"sampling": sampling}, inputs=inputs)

    def _scores(self, draws: Node, rows: Node) -> Node:
        recipe, found = self.recipe, self.found
        assert recipe.scoring is not None
        chosen, inputs = slice_of(recipe.scoring, "scores"), {"draws": draws, "rows": rows}
        if recipe.voting and "accuracy" in recipe.scoring.metrics:
            inputs["voted"] = found["voted"]
            chosen |= slice_of(recipe.voting, "scores")
        if "overlap" in found:
            inputs["overlap"] = found["overlap"]  # no scores of rows that the recipe refuses
        answering = found["merged" if "merged" in found else "model"]
        inputs["greedy"] = found["greedy"] = self._answers(answering, greedy=True)
        if "base" in recipe.scoring.compare:
            inputs["base"] = found["base"] = self._answers(found["model"], greedy=True, untuned=True)
        if "shards_answers" in found:
            inputs["likelihood"] = found["likelihood"] = self._likelihood(answering)
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
