"""Metrics of a user's own: functions that an installed package registers, never code from a recipe.

In the package's `pyproject.toml`:

    [project.entry-points."tunemake.metrics"]
    brevity = "my_package:brevity"

where `brevity(row, text)` gets a row as in rows.jsonl (`id`, `group`, `prompt`, `turns`, `gold`) and one
answer, and returns a number from 0 to 1, higher is better. With an attribute `needs_gold = False` it is also
asked about rows without a gold answer.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import msgspec

from workflow.errors import BuildError
from workflow.metrics.metric import Metric
from workflow.results import AskedRow

GROUP = "tunemake.metrics"


class Own(Metric):
    """A metric that another package has."""

    def __init__(self, name: str, version: str):
        """Find it.

        Raises:
            BuildError: No installed package, or several, have it, the package's version is another, or
                it cannot be imported.
        """
        found = [point for point in entry_points(group=GROUP) if point.name == name]
        if len(found) != 1:
            what = "no installed package registers" if not found else "several packages register"
            raise BuildError(f"scoring.own: {what} {name!r} as an entry point of {GROUP}")
        package = found[0].dist
        if package is None or package.version != version:
            there = f"{package.name} {package.version}" if package else "it has no version"
            raise BuildError(
                f"scoring.own: {name}: the recipe wants version {version}, installed is {there}; "
                "install that one, or change the recipe"
            )
        try:
            self._function: Any = found[0].load()
        except (ImportError, AttributeError) as error:
            raise BuildError(f"scoring.own: {name}: {package.name} cannot be imported ({error})") from None
        self.name, self.signature = name, f"{package.name}:{version}"
        self.needs_gold = bool(getattr(self._function, "needs_gold", True))

    def score(self, row: AskedRow, text: str) -> float:
        """What the function says.

        Raises:
            BuildError: It fails, or returns no number from 0 to 1.
        """
        try:
            value = float(self._function(msgspec.to_builtins(row), text))
        except Exception as error:  # whatever another's code raises is its own fault, and one line tells it
            raise BuildError(
                f"scoring.own: {self.name} fails on row {row.id!r}: {type(error).__name__}: {error}"
            ) from None
        if not 0 <= value <= 1:
            raise BuildError(f"scoring.own: {self.name} gives row {row.id!r} {value}, not 0 to 1")
        return value
