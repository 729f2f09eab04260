"""Reading a recipe file: strict, and every error names file, line, column, field and a remedy."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from workflow.errors import BuildError
from workflow.recipe import yaml12
from workflow.recipe.leaf import fields_below
from workflow.recipe.recipe import Recipe

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LINE = 120
"""Characters shown of an offending line."""
RESERVED = ("rehearsal", "experiments")
AnySection = TypeVar("AnySection", bound=BaseModel)


def recipe_path(name: str, folder: Path = Path("recipes")) -> Path:
    """The file of the recipe called `name`.

    Raises:
        BuildError: The name is not allowed, reserved, or no such file exists.
    """
    if not re.fullmatch(NAME, name) or name in RESERVED:
        raise BuildError(
            f"{name!r} is not a recipe name: use letters, digits, '.', '_' and '-' "
            f"(reserved: {', '.join(RESERVED)})"
        )
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        near = nearest(name, known)
        raise BuildError(f"{path}: no such recipe{near or '; there are: ' + (', '.join(known) or 'none')}")
    _refuse_twins(name, folder)
    return path


def _refuse_twins(name: str, folder: Path) -> None:
    """Refuse names that differ in case only: on some file systems they, or their results, are one."""
    listed = _listed(folder, folder.stat().st_mtime_ns)
    if listed.get(name.casefold()) == [name]:
        return
    there = _listed.__wrapped__(folder, 0)[name.casefold()]  # the listing may be of the same clock tick
    if name not in there:
        raise BuildError(f"{folder / name}.yaml: the file is called {there[0]}.yaml; ask for that name")
    if len(there) > 1:
        twins = " and ".join(f"{folder / twin}.yaml" for twin in there)
        raise BuildError(f"{twins} differ in case only, some file systems take them for one; rename one")


@lru_cache
def _listed(folder: Path, mtime: int) -> dict[str, list[str]]:
    """Names of recipes by their name without case; listed again when the folder changed (mtime, ns)."""
    found: dict[str, list[str]] = {}
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(".yaml"):
            stem = entry.removesuffix(".yaml")
            found.setdefault(stem.casefold(), []).append(stem)
    return found


def load_recipe(path: Path) -> Recipe:
    """Read and validate one recipe.

    Raises:
        BuildError: All mistakes of the file, one line each with the offending line below it.
    """
    return Written.read(path, "a recipe is a mapping of sections; see `tunemake new`").valid(Recipe)


@dataclass(frozen=True)
class Written:
    """A YAML file as it was written, which remembers where everything stands."""

    path: Path
    text: str
    document: yaml12.Document

    @classmethod
    def read(cls, path: Path, kind: str) -> Written:
        """Read a file; `kind` is said of one that is no mapping.

        Raises:
            BuildError: It cannot be read as YAML.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise BuildError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
        try:
            document = yaml12.parse(text)
        except yaml12.YamlError as error:
            raise BuildError(_located(path, text, error.line, error.column, error.reason)) from None
        if not isinstance(document.value, dict):
            raise BuildError(f"{path}:1:1: {kind}")
        return cls(path, text, document)

    def valid(self, model: type[AnySection]) -> AnySection:
        """The validated content.

        Raises:
            BuildError: All mistakes of the file, one line each with the offending line below it.
        """
        try:
            return model.model_validate(self.document.value)
        except ValidationError as error:
            raise BuildError(self._explain(error, model)) from None

    def at(self, place: yaml12.Path, reason: str) -> str:
        """A reason with the place in the file that it is about, or the nearest one around it."""
        return _located(self.path, self.text, *_nearest_place(self.document, place), reason)

    def _explain(self, error: ValidationError, model: type[BaseModel]) -> str:
        lines: dict[str, tuple[int, int]] = {}
        for item in error.errors(include_url=False):
            loc = mistaken(self.document.value, item)
            place = loc if item["type"] != "missing" else loc[:-1]
            if item["type"] == "value_error" and loc not in self.document.places:
                place = loc = loc[:-1]  # a rule about a whole section: its last part is the tag of the union
            reason = reason_of(item, loc, model)
            lines[self.at(place, reason)] = _nearest_place(self.document, place)
        return "\n".join(sorted(lines, key=lines.__getitem__))


def mistaken(value: Any, item: Any) -> yaml12.Path:
    """The place in `value` that an error of pydantic's is about."""
    loc = _path_in_file(value, item["loc"], item["type"] in ("missing", "extra_forbidden"))
    if item["type"] == "union_tag_invalid":
        return (*loc, item["ctx"]["discriminator"].strip("'"))
    return loc


def reason_of(item: Any, loc: yaml12.Path, model: type[BaseModel]) -> str:
    """The field and what is wrong with it, in a sentence."""
    name = ".".join(str(part) for part in loc)
    return f"{name}: {_reason(item, loc, model)}" if name else _reason(item, loc, model)


def _located(path: Path, text: str, line: int, column: int, reason: str) -> str:
    source = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    shown = f"\n    {source.strip()[:LINE]}" if source.strip() else ""
    return f"{path}:{line}:{column}: {reason}{shown}"


def _path_in_file(value: Any, loc: tuple[str | int, ...], key: bool) -> yaml12.Path:
    """The part of a pydantic location that exists in the file: union tags are left out.

    Args:
        value: The file's content.
        loc: The location.
        key: Whether its last part is a key, there or not; else it may be a tag.
    """
    path: list[str | int] = []
    for i, part in enumerate(loc):
        if isinstance(value, dict) and part in value:
            value = value[part]
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
        elif key and i == len(loc) - 1 and isinstance(value, dict):
            path.append(part)
    return tuple(path)


def _nearest_place(document: yaml12.Document, path: yaml12.Path) -> tuple[int, int]:
    while path and path not in document.places:
        path = path[:-1]
    return document.places.get(path, (1, 1))


def _reason(item: Any, loc: yaml12.Path, model: type[BaseModel]) -> str:
    kind, given = item["type"], item["input"]
    if kind == "extra_forbidden":
        known = fields_below(model, loc[:-1]) or []
        if loc[-1] in known:
            return f"not a key of this kind of {loc[-2]}"
        return f"unknown key{nearest(str(loc[-1]), known) or '; known: ' + ', '.join(known)}"
    if kind == "missing":
        return "missing; add it"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_reason(item)
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    if kind == "value_error" or isinstance(given, dict):
        return message
    return f"{message}, not {given!r}"


def _tag_reason(item: Any) -> str:
    context = item["ctx"]
    tag = context["discriminator"].strip("'")
    if "tag" not in context:
        return f"needs `{tag}:`, which says the kind"
    known = [name.strip(" '") for name in context["expected_tags"].split(",")]
    near = nearest(context["tag"], known)
    return f"{context['tag']!r} is unknown{near or '; known: ' + ', '.join(known)}"


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean X?` for the known word that is most like `word`; empty if none is."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {match[0]}?" if match else ""


def _stem(path: Path) -> str:
    return path.stem


def everything(folder: Path) -> list[str]:
    """Names of all recipes of a folder, then of its experiments."""
    return [
        named(path)[1]
        for pattern in ("*.yaml", "experiments/*.yaml")
        for path in sorted(folder.glob(pattern), key=_stem)
    ]


def named(path: Path) -> tuple[Path, str]:
    """Folder of the recipes, and name of what the file `path` in it describes: a recipe or an experiment."""
    if path.parent.name == "experiments":
        return path.parent.parent, f"experiments/{path.stem}"
    return path.parent, path.stem
