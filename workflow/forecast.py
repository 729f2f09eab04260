"""What a build of many recipes would make, without Snakemake: `tunemake plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workflow.costs import Cost, Costs, total
from workflow.earlier import LastBuild, matched
from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.node import Node
from workflow.problems import problems_of
from workflow.settle import NOTHING, PUBLISHED, last_files
from workflow.state import Look, names
from workflow.store.store import Store


@dataclass
class Outlook:
    """One recipe: the products that its build makes, and why it cannot."""

    recipe: str
    jobs: dict[str, Node] = field(default_factory=dict)
    linked: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    empty: bool = False

    def __str__(self) -> str:
        """`built`, what is made, or the first thing that a build stops at."""
        if self.stops:
            more = f" (and {len(self.stops) - 1} more)" if len(self.stops) > 1 else ""
            return f"cannot: {self.stops[0]}{more}"
        if self.jobs:
            return f"to make: {', '.join(self.labels[address] for address in self.jobs)}"
        if self.empty:
            return NOTHING
        return f"built ({self.linked} linked)" if self.linked else "built"


class Forecast:
    """The outlooks of recipes that share a store; each product is looked at and counted once."""

    def __init__(self, draw: Draw):
        """Draw recipes with `draw`."""
        self.draw, self.look = draw, Look(draw.store)
        self.costs = Costs(self.look)
        self.jobs: dict[str, Cost | None] = {}

    def of(self, recipe: str) -> Outlook:
        """The outlook of a recipe; one that cannot be read is an outlook too."""
        try:
            graph = self.draw.recipe(recipe)
            targets = [graph.node(PUBLISHED[name][0]) for name in last_files(graph)]
            needed = self.look.needed(targets)
            return self._outlook(recipe, needed) if needed else Outlook(recipe, empty=not targets)
        except BuildError as error:
            return Outlook(recipe, stops=[str(error).splitlines()[0]])

    def _outlook(self, recipe: str, needed: dict[str, Node]) -> Outlook:
        jobs = {address: node for address, node in needed.items() if not self.look.linked(node)}
        labels = names(self.draw, recipe)
        last = matched(self.draw.recipe(recipe).products, LastBuild(self.draw.store, recipe))
        stops = dict.fromkeys(problem for node in jobs.values() for problem in problems_of(node))
        if not stops:
            for address, node in jobs.items():
                if address not in self.jobs:
                    self.jobs[address] = self.costs.of(node, last.get(address))
        return Outlook(recipe, jobs, len(needed) - len(jobs), labels, list(stops))

    def summary(self, outlooks: Sequence[Outlook]) -> str:
        """`12 recipes: 9 built, 2 to build, 1 cannot be built; 7 jobs, about 55 s`."""
        stopped = sum(bool(outlook.stops) for outlook in outlooks)
        open_ = sum(bool(outlook.jobs) and not outlook.stops for outlook in outlooks)
        parts = [f"{len(outlooks) - stopped - open_} built", f"{open_} to build" if open_ else ""]
        parts.append(f"{stopped} cannot be built" if stopped else "")
        recipes = f"{len(outlooks)} recipe{'s' if len(outlooks) != 1 else ''}"
        jobs = f"{len(self.jobs)} job{'s' if len(self.jobs) != 1 else ''}, {total(self.jobs.values())}"
        return f"{recipes}: {', '.join(filter(None, parts))}" + (f"; {jobs}" if self.jobs else "")


def forecast(recipes: Sequence[str], store: Store) -> tuple[str, int]:
    """One line per recipe and the totals, products that recipes share counted once.

    Returns:
        The lines, and how many of the recipes cannot be built.
    """
    found = Forecast(Draw(store))
    outlooks = [found.of(recipe) for recipe in recipes]
    column = max(map(len, recipes), default=0) + 2
    lines = [f"{outlook.recipe:<{column}}{outlook}" for outlook in outlooks]
    stopped = sum(bool(outlook.stops) for outlook in outlooks)
    return "\n".join([*lines, "", found.summary(outlooks)]), stopped
