"""The nodes of an experiment: its comparison, and the sheet for people who judge.

Arms are drawn as recipes are. Before anything is made of them, they are compared: an arm that differs from
the baseline in more than the declared factors is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workflow.arms import EXPERIMENTS, Laid
from workflow.errors import BuildError
from workflow.factors import Difference, differences, undeclared
from workflow.node import Node
from workflow.recipe.experiment import BASELINE
from workflow.recipe.leaf import slice_of
from workflow.rehearsal import REHEARSAL

if TYPE_CHECKING:
    from workflow.graph import Draw, Graph

SCORES, TRAINING, LEARNED, ASKED = "scores of ", "training of ", "learned by ", "asked of "
"""Role of an input, before the name of an arm: its scores, its training, the tokens of both its splits."""


class ExperimentNodes:
    """Draws one experiment."""

    def __init__(self, draw: Draw, name: str, laid: Laid):
        """Draw the arms of `laid` and compare them; `name` begins with `rehearsal/` for its rehearsal.

        Raises:
            BuildError: An arm is wrong, differs in more than the factors, or does not differ at all.
        """
        self.draw, self.laid, self.rehearsal = draw, laid, name.startswith(REHEARSAL)
        compared = self._compared()
        self.differences = {arm: found for arm, found in compared.items() if found or arm == BASELINE}
        self.names = {arm: f"{name}/{arm}" for arm in self.differences}
        self.graphs = {arm: draw.recipe(name) for arm, name in self.names.items()}
        self.baseline: Graph = self.graphs[BASELINE]

    def _compared(self) -> dict[str, list[Difference]]:
        """What each arm differs in, by the real recipes: a rehearsal makes some fields equal."""
        if not self.rehearsal:
            return self._proven(self.draw)
        from workflow.graph import Draw

        return self._proven(Draw(self.draw.store, self.draw.folder, absent=True))

    def _proven(self, draw: Draw) -> dict[str, list[Difference]]:
        laid = self.laid
        scores = {arm: self._scores(draw, arm) for arm in laid.arms}
        found = {arm: differences(scores[BASELINE], node) for arm, node in scores.items()}
        if problems := [line for arm in found for line in self._refused(arm, found[arm])]:
            raise BuildError("\n".join(problems))
        if not any(found.values()):
            raise BuildError(laid.written.at(("matrix",), "every cell of the matrix is the baseline itself"))
        return found

    def _scores(self, draw: Draw, arm: str) -> Node:
        name = f"{EXPERIMENTS}{self.laid.name}/{arm}"
        try:
            return draw.recipe(name).node("scores")
        except BuildError as error:
            placed = str(error).startswith((str(self.laid.path), str(self.laid.folder)))
            raise BuildError(str(error) if placed else self.laid.at(arm, str(error))) from None

    def _refused(self, arm: str, found: list[Difference]) -> Iterator[str]:
        more = undeclared(found, self.laid.experiment.factors)
        if more:
            lines = "".join(f"\n    {difference}" for difference in more)
            names = ", ".join(dict.fromkeys(difference.field for difference in more))
            reason = f"differs from the baseline in more than the factors: make it equal, or declare {names}"
            yield self.laid.at(arm, reason) + lines
        elif not found and arm != BASELINE and self.laid.experiment.arms:
            yield self.laid.at(arm, "differs from the baseline in nothing that decides a score; drop it")

    def all(self) -> dict[str, Node]:
        """Name -> node: `review`, where people judge, and the comparison, which is also the report."""
        found: dict[str, Node] = {}
        experiment = self.laid.experiment
        inputs = {role: node for arm in self.graphs for role, node in self._behind(arm)}
        sources = {}
        if experiment.review:
            found["review"] = self._review(self._reviewed())
            if experiment.review.sheet:
                inputs["review"] = found["review"]
                sources["sheet"] = self.laid.path.parent / experiment.review.sheet
        found["experiment"] = found["report"] = self._node("experiment", self._slice(), inputs, sources)
        return found

    def _node(
        self, product: str, slice: dict[str, Any], inputs: dict[str, Node], sources: Any = None
    ) -> Node:
        digests, path = self.draw.digests(sources or {}), str(self.laid.path)
        return Node(product, slice, inputs, sources or {}, digests, recipe=path)

    def _behind(self, arm: str) -> Iterator[tuple[str, Node]]:
        """Role -> what the comparison reads of an arm."""
        scores = self.graphs[arm].node("scores")
        yield SCORES + arm, scores
        draws = scores.inputs["draws"]
        yield ASKED + arm, draws.inputs["shards"]
        adapter = trained(draws)
        if adapter is not None and "shards" in adapter.inputs:
            yield TRAINING + arm, adapter
            yield LEARNED + arm, adapter.inputs["shards"]

    def _slice(self) -> dict[str, Any]:
        experiment, scoring = self.laid.experiment, self.baseline.recipe.scoring
        assert scoring is not None
        arms = {
            arm: {
                "is": how if isinstance(how, str) else dict(how),
                "differs": [vars(d) for d in self.differences[arm]],
            }
            for arm, how in self.laid.arms.items()
            if arm in self.graphs
        }
        review = {"arm": self._reviewed()} if experiment.review else {}
        return {
            "question": experiment.question,
            "factors": experiment.factors,
            "arms": arms,
            "order": list(arms),
            "metrics": [*scoring.metrics, *scoring.own],
            "resamples": scoring.resamples,
            "seed": scoring.seed,
            "weigh": scoring.weigh,
            "rehearsal": self.rehearsal,
            **review,
        }

    def _reviewed(self) -> str:
        """The arm that is judged beside the baseline."""
        review, arms = self.laid.experiment.review, [arm for arm in self.graphs if arm != BASELINE]
        assert review is not None
        if review.arm is None and len(arms) > 1 or review.arm not in (None, *arms):
            wrong = f"review.arm: say which arm is judged beside the baseline: {', '.join(arms)}"
            raise BuildError(self.laid.written.at(("review", "arm"), wrong))
        return review.arm or arms[0]

    def _review(self, arm: str) -> Node:
        review = self.laid.experiment.review
        assert review is not None
        one, other = (self.graphs[name].node("scores") for name in (BASELINE, arm))
        if one.inputs["rows"].address != other.inputs["rows"].address:
            raise BuildError(
                self.laid.at(arm, "is asked other test rows: answers cannot be judged side by side")
            )
        inputs = {"one": one.inputs["greedy"], "other": other.inputs["greedy"], "rows": one.inputs["rows"]}
        return self._node("review", slice_of(review, "review"), inputs)


def trained(predictions: Node) -> Node | None:
    """The training behind the model that answered; None where nothing was trained."""
    model = predictions.inputs.get("adapter") or predictions.inputs["model"]
    return (
        model.inputs["adapter"]
        if model.product == "merged"
        else model
        if model.product == "adapter"
        else None
    )
