"""The arms of an experiment: recipes without files, each a function of the baseline's recipe.

An arm is named like a recipe, `experiments/<experiment>/<arm>`, and drawn like one: what two arms have in
common is the same node of the graph, and is made once.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflow.errors import BuildError
from workflow.recipe import Recipe, load_recipe, recipe_path
from workflow.recipe.experiment import BASELINE, MAX_ARMS, Experiment
from workflow.recipe.load import NAME, Written, mistaken, nearest, reason_of

EXPERIMENTS = "experiments/"
"""Before the name of an experiment: its graph. Also its folder, below that of the recipes."""
Settings = Mapping[str, Any]
"""Dotted field of the baseline -> the value that it has in an arm."""


@dataclass(frozen=True)
class Laid:
    """An experiment as its file lays it out."""

    name: str
    folder: Path
    written: Written
    experiment: Experiment

    @property
    def path(self) -> Path:
        """The experiment's file."""
        return self.written.path

    @cached_property
    def arms(self) -> dict[str, Settings | str]:
        """Arm -> what it sets in the baseline, or the name of the recipe that it is; the baseline first."""
        found: dict[str, Settings | str] = {BASELINE: self.experiment.baseline}
        for name, arm in (self.experiment.arms or {}).items():
            found[name] = arm.recipe if arm.recipe is not None else arm.set or {}
        for name, settings in self._cells():
            if name in found:
                raise BuildError(self.at(BASELINE, f"two cells are both called {name}; write them as arms"))
            found[name] = settings
        return found

    def _cells(self) -> Iterator[tuple[str, Settings]]:
        """Name and values of each combination of a matrix."""
        matrix = self.experiment.matrix or {}
        for number, values in enumerate(itertools.product(*matrix.values()) if matrix else ()):
            if number >= MAX_ARMS:
                raise BuildError(self.written.at(("matrix",), f"matrix: more than {MAX_ARMS} arms"))
            settings = dict(zip(matrix, values, strict=True))
            yield "_".join(_cell(field, value) for field, value in settings.items()), settings

    def at(self, arm: str, reason: str) -> str:
        """A reason with the line of an arm in the file."""
        if arm == BASELINE:
            return self.written.at(("baseline",), reason)
        kind = "arms" if self.experiment.arms else "matrix"
        return self.written.at(
            (kind, arm), f"{kind}.{arm}: {reason}" if kind == "arms" else f"{arm}: {reason}"
        )

    def recipe(self, arm: str) -> tuple[Recipe, Path]:
        """The recipe that an arm is, and the file of the recipe it comes from.

        Raises:
            BuildError: There is no such arm, or what it sets makes no recipe.
        """
        if arm not in self.arms:
            near = nearest(arm, list(self.arms)) or f"; there are: {', '.join(self.arms)}"
            raise BuildError(f"{self.path}: no arm {arm}{near}")
        how = self.arms[arm]
        path = recipe_path(how if isinstance(how, str) else self.experiment.baseline, self.folder)
        recipe = load_recipe(path)
        return (recipe if isinstance(how, str) else self._with(recipe, arm, how)), path

    def _with(self, recipe: Recipe, arm: str, settings: Settings) -> Recipe:
        try:
            told = changed(recipe, settings)
        except BuildError as error:
            raise BuildError(self.at(arm, str(error))) from None
        try:
            return Recipe.model_validate(told)
        except ValidationError as error:
            lines = [self._mistake(arm, settings, told, item) for item in error.errors(include_url=False)]
            raise BuildError("\n".join(dict.fromkeys(lines))) from None

    def _mistake(self, arm: str, settings: Settings, told: dict[str, Any], item: Any) -> str:
        loc = mistaken(told, item)
        reason = reason_of(item, loc, Recipe)
        field = next((name for name in settings if _related(name, loc)), None)
        if field is None or not self.experiment.arms:
            return self.at(arm, reason)
        return self.written.at(("arms", arm, "set", field), f"arms.{arm}.set: {reason}")


def _related(field: str, loc: tuple[str | int, ...]) -> bool:
    """Whether a mistake at `loc` may come from setting `field`."""
    parts, place = field.split("."), [str(part) for part in loc]
    shared = min(len(parts), len(place))
    return shared > 0 and parts[:shared] == place[:shared]


def _cell(field: str, value: Any) -> str:
    """`r-8` for `tuning.r` = 8; characters that no name may have become `_`."""
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{field.rpartition('.')[2]}-{text}").strip("_")[:60]


def changed(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    """What a recipe says, with other values in some fields; null leaves a field out, as if never written.

    Raises:
        BuildError: A field lies in something that is no section in this recipe.
    """
    told = recipe.model_dump(mode="json", exclude_unset=True)
    for field, value in settings.items():
        _put(told, field, copy.deepcopy(value))
    return told


def _put(told: dict[str, Any], field: str, value: Any) -> None:
    *sections, last = field.split(".")
    for depth, section in enumerate(sections):
        inner = told.setdefault(section, {})
        if not isinstance(inner, dict):
            whole = ".".join(sections[: depth + 1])
            raise BuildError(f"{field}: {whole} is {json.dumps(inner)} in the baseline; set {whole} whole")
        told = inner
    if value is None:
        told.pop(last, None)
    else:
        told[last] = value


def lay_out(name: str, folder: Path = Path("recipes")) -> Laid:
    """Read the experiment called `name`, in `experiments/` below the recipes.

    Raises:
        BuildError: There is no such file, or it is wrong.
    """
    own = folder / EXPERIMENTS.rstrip("/")
    if not re.fullmatch(NAME, name):
        raise BuildError(f"{name!r} is not the name of an experiment: use letters, digits, '.', '_' and '-'")
    path = own / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in own.glob("*.yaml"))
        near = nearest(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise BuildError(f"{path}: no such experiment{near}")
    written = Written.read(path, "an experiment is a mapping; see docs/experiments.md")
    return Laid(name, folder, written, written.valid(Experiment))
