"""JSON Schemas (2020-12) of what users and other programs read; `schemas/` holds them generated."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from workflow.errors import BuildError

DIALECT = "https://json-schema.org/draft/2020-12/schema"


_PLACES = {
    "recipe": ("workflow.recipe.recipe", "Recipe"),
    "experiment": ("workflow.recipe.experiment", "Experiment"),
    "plan": ("workflow.store.records", "Plan"),
    "manifest": ("workflow.store.records", "Manifest"),
    "receipt": ("workflow.store.records", "Receipt"),
    "voted": ("workflow.results", "VotedLine"),
    "item": ("workflow.results", "Item"),
    "scores": ("workflow.results", "Scores"),
    "served": ("workflow.serving.record", "ServedRecord"),
}
"""Schema name -> module and class of the pydantic model; imported only when it is needed."""


def models() -> dict[str, Any]:
    """Schema name -> the pydantic model it is generated from."""
    return {name: _model(name) for name in _PLACES}


def _model(name: str) -> Any:
    module, model = _PLACES[name]
    return getattr(import_module(module), model)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema called `name`."""
    generated = _model(name).model_json_schema()
    return {"$schema": DIALECT, "$id": f"{name}.schema.json", **generated}


def write_all(folder: Path) -> list[Path]:
    """Write every schema to `folder` as `<name>.schema.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.schema.json" for name in models()]
    for path, name in zip(paths, models(), strict=True):
        path.write_text(json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n")
    return paths


@cache
def _validator(name: str) -> Any:
    from jsonschema_rs import Draft202012Validator

    return Draft202012Validator(schema(name))


def check(name: str, value: Any, place: object) -> Any:
    """Validate `value` against the schema called `name` and return it.

    Raises:
        BuildError: It does not fit; the message names `place` and the first mistake.
    """
    for error in _validator(name).iter_errors(value):
        where = ".".join(str(part) for part in error.instance_path) or "the whole"
        raise BuildError(
            f"{place}: not a valid {name} ({where}: {error.message[:200]}); delete it and build again"
        )
    return value
