"""Why something is made again: per product, what changed since the last build of the recipe.

`tunemake why` prints it, and Snakemake shows the same reasons in front of its jobs: a rule's
`message: "{because:{wildcards.address}}"` is formatted only for jobs that are to run.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from workflow import settle
from workflow.changes import Change
from workflow.comparison import Comparison
from workflow.costs import Cost, Costs, total
from workflow.earlier import LastBuild, in_results
from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.node import Node
from workflow.problems import problems_of
from workflow.recipe.load import named
from workflow.settle import NOTHING, PUBLISHED, last_files
from workflow.state import Look, in_flow
from workflow.store.records import InputRef
from workflow.store.store import Store


@dataclass(frozen=True)
class Reason:
    """One product: whether it is there, whether the build makes it, and what explains that.

    `own` is what changed in itself, `inputs` the names of changed inputs, `missing` what to say where
    neither is known; `soft`: nothing but contents of sources changed in front of it, so that it is cut off
    if they come to the same; `stops`: why it cannot be made.
    """

    name: str
    node: Node
    built: bool
    needed: bool
    linked: bool
    missing: str
    own: list[Change] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    soft: list[str] = field(default_factory=list)
    cost: Cost | None = None
    stops: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The state, and the reason for it."""
        if self.built:
            changes = self.changes()
            return f"built; new since the last build: {changes}" if changes else "built"
        if self.stops:
            return f"cannot be made: {'; '.join(self.stops)}"
        return f"not built: {self.job()}" if self.needed else "not built, not needed"

    def changes(self) -> str:
        """What differs from the last build; empty if nothing does."""
        parts = (", ".join(map(str, self.own)), self._because())
        return "; ".join(part for part in parts if part)

    def job(self) -> str:
        """Why it is made, whether that may turn out needless, and how long it will take."""
        changes = self.changes() or self.missing
        if self.linked:
            return f"{changes}; its content is known and only linked"
        soft = f"cut off if {_listed(self.soft)} {_verb('turn', self.soft)} out the same" if self.soft else ""
        return "; ".join(part for part in (changes, soft, str(self.cost or "")) if part)

    def _because(self) -> str:
        return f"because {_listed(self.inputs)} {_verb('change', self.inputs)}" if self.inputs else ""


MANY = 4
"""More names than these are not listed."""


def _listed(names: list[str]) -> str:
    if len(names) > MANY:
        return f"{', '.join(names[: MANY - 1])} and {len(names) - MANY + 1} others"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _verb(verb: str, subjects: list[str]) -> str:
    return verb if len(subjects) > 1 else f"{verb}s"


class Explained:
    """The reasons of one recipe, against its last build."""

    def __init__(self, draw: Draw, recipe: str, costs: Costs, files: list[str] | None = None):
        """Explain a build of `files` under results/<recipe>/; default: the last ones that it has.

        Raises:
            BuildError: The recipe is wrong, has no such file, or built.json is damaged.
        """
        self.costs, self.look = costs, costs.look
        self.last = LastBuild(costs.store, recipe)
        self.against = Comparison(draw, recipe, self.last)
        graph = self.against.graph
        self.targets = [graph.node(PUBLISHED[file][0]) for file in files or last_files(graph)]
        self.needed = self.look.needed(self.targets)

    @cached_property
    def reasons(self) -> list[Reason]:
        """One per product behind the targets, in the order of the flow."""
        return [self._reason(node) for node in in_flow(self.targets, self.against.names)]

    def _reason(self, node: Node) -> Reason:
        against, last = self.against, self.against.before(node)
        needed = node.address in self.needed
        linked = needed and self.look.linked(node) is not None
        return Reason(
            against.names[node.address],
            node,
            built=self.look.key(node.product, node.address) is not None,
            needed=needed,
            linked=linked,
            missing=self._missing(node, last),
            own=against.own(node),
            inputs=against.inputs(node),
            soft=against.soft(node),
            cost=self.costs.of(node, last) if needed and not linked else None,
            stops=problems_of(node) if needed and not linked else [],
        )

    def _missing(self, node: Node, last: InputRef | None) -> str:
        if last is None:
            return "never built before"
        same = last.address == node.address
        return "its folder is gone" if same else "changed; the plan of the last build cannot be read"

    @property
    def stops(self) -> list[str]:
        """Why the build cannot be whole."""
        return [stop for reason in self.reasons for stop in reason.stops]

    def summary(self) -> str:
        """`3 of 9 products to make, about 2 h 05 min`."""
        jobs = [reason for reason in self.reasons if reason.needed and not reason.linked]
        if not self.targets:
            return NOTHING
        if not jobs:
            return f"all of {len(self.reasons)} products are built or linked; nothing is made"
        work = total(reason.cost for reason in jobs)
        if self.stops:
            return f"{len(jobs)} of {len(self.reasons)} products to make, but the build would stop"
        return f"{len(jobs)} of {len(self.reasons)} products to make, {work}"


def explain(target: str, store: Store, width: int | None = None) -> tuple[str, int]:
    """What a build of `target` would make and why, one line per product in the order of the flow.

    Args:
        target: results/<recipe>/<file>, results/<recipe>, recipes/<recipe>.yaml or a recipe's name.
        store: Where products are.
        width: Columns of the terminal, to wrap at; None: no wrapping.

    Returns:
        The lines, and how many things a build would stop at.

    Raises:
        BuildError: No such recipe or file, the recipe is wrong, or built.json is damaged.
    """
    folder, recipe, files = asked(target)
    explained = Explained(Draw(store, folder), recipe, Costs(Look(store)), files)
    column = max((len(reason.name) for reason in explained.reasons), default=0) + 2
    lines = [_wrapped(f"{reason.name:<{column}}{reason}", column, width) for reason in explained.reasons]
    return "\n".join([*lines, *([""] if lines else []), _wrapped(explained.summary(), 0, width)]), len(
        explained.stops
    )


def _wrapped(line: str, column: int, width: int | None) -> str:
    if width is None:
        return line
    indent = " " * column
    return textwrap.fill(line, max(width, column + 30), subsequent_indent=indent, break_on_hyphens=False)


def asked(target: str) -> tuple[Path, str, list[str] | None]:
    """Folder of the recipes, name of the recipe and files meant by what a person typed.

    Raises:
        BuildError: It is a file that no recipe has.
    """
    path = Path(target)
    if path.suffix == ".yaml":
        return *named(path), None
    if shown := in_results(path):
        recipe, file = shown
        if file and file not in PUBLISHED:
            raise BuildError(f"{target}: no such file; there are: {', '.join(PUBLISHED)}")
        return Path("recipes"), recipe, [file] if file else None
    return Path("recipes"), target.rstrip("/"), None


class Because:
    """The reasons of a running build, by address: formatted into the messages of Snakemake's jobs.

    Nothing is read before the first job is to run. A process that drew no recipe (a job on another
    machine) has no reasons to give, and says what it makes.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] | None = None

    def __format__(self, what: str) -> str:
        """The reason for an address, or for a published file `<recipe>/<name>`."""
        if self._reasons is None:
            self._reasons, costs = {}, Costs(Look(Store.here()))
            for recipe in settle.drawn():
                self._reasons = _reasons(recipe, costs) | self._reasons
        return self._reasons.get(what, what if "/" in what else what[:8])


def _reasons(recipe: str, costs: Costs) -> dict[str, str]:
    """Address or published file -> reason; none where that fails: an explanation never stops a build."""
    try:
        explained = Explained(settle.draw(), recipe, costs)
    except BuildError:
        return {}
    return {
        **{reason.node.address: _of_job(recipe, reason) for reason in explained.reasons},
        **{f"{recipe}/{name}": text for name, text in _of_files(recipe, explained).items()},
    }


def _of_job(recipe: str, reason: Reason) -> str:
    """`1234abcd, greedy of small: because merged changes`; the name is left out where it says no more."""
    owner, _, name = reason.name.rpartition("/")
    label = reason.node.address[:8] + (f", {name}" if name != reason.node.product else "")
    again = "built already, it is only looked at" if reason.built else reason.job()
    return f"{label} of {owner or recipe}: {again}"


def _of_files(recipe: str, explained: Explained) -> dict[str, str]:
    found = {}
    for name, (product, _) in PUBLISHED.items():
        node, before = explained.against.graph.products.get(product), explained.last.shown.get(name)
        if node is not None:
            same = before is not None and before.address == node.address
            old = f"{before.address[:8]} -> " if before and not same else ""
            found[name] = f"{recipe}/{name} shows {product} {old}{node.address[:8]}"
    return found


because = Because()
