"""The nodes behind a model: what it answers, what is voted, scored and reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workflow.node import Node
from workflow.recipe import Recipe
from workflow.recipe.leaf import slice_of
from workflow.recipe.tuning import Prompt

REPORTED = (
    *("rows_train", "rows_test", "overlap", "tokenizer", "shards_train", "shards_test"),
    *("adapter", "merged"),
    *("base", "greedy", "predictions", "voted", "scores"),
)
"""Roles that the report is about."""


class AnswerNodes:
    """Draws what one recipe asks of its model."""

    def __init__(self, recipe: Recipe, found: dict[str, Node], node: Callable[..., Node], folder: Path):
        """Draw `recipe` of `folder`; `found` holds its rows, shards and models, `node` makes a node."""
        self.recipe, self.found, self.node, self.folder = recipe, dict(found), node, folder

    def all(self) -> dict[str, Node]:
        """Name -> node: predictions and, as far as the recipe says so, votes, scores and the report."""
        recipe, found = self.recipe, self.found
        rows = found["rows_test"]
        found["predictions"] = draws = self._answers(found["merged" if "merged" in found else "model"])
        if recipe.voting:
            inputs = {"predictions": draws, "rows": rows}
            found["voted"] = self.node("voted", slice=slice_of(recipe.voting, "voted"), inputs=inputs)
        if recipe.scoring:
            found["scores"] = self._scores(draws, rows)
            found["report"] = self._report()
        return found

    def _answers(self, model: Node, greedy: bool = False, untuned: bool = False) -> Node:
        """What a model answers to the test rows; with a trained prompt beside it unless `untuned`."""
        assert self.recipe.sampling is not None
        sampling = slice_of(self.recipe.sampling, "predictions")
        if greedy:
            sampling |= {"n": 1, "temperature": 0.0, "top_p": 1.0, "top_k": None, "seed": 0}
        inputs = {"shards": self.found["shards_test"], "model": model}
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
        schema = recipe.scoring.answer_schema
        sources = {"answer_schema": self.folder / schema} if schema else {}
        return self.node("scores", slice=chosen, inputs=inputs, sources=sources)

    def _report(self) -> Node:
        shown = self.recipe.model_dump(mode="json", exclude={"execution"}, exclude_none=True)
        inputs = {role: self.found[role] for role in REPORTED if role in self.found}
        return self.node("report", slice={"recipe": shown}, inputs=inputs)
