"""The committed schemas and field reference are what the code says, and say something of every leaf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest
from jsonschema import Draft202012Validator

from workflow.products import MAKERS
from workflow.recipe.leaf import EXECUTION, SOURCE, Section, models_in, owners
from workflow.recipe.recipe import Recipe
from workflow.reference import reference
from workflow.schemas import models, schema

ROOT = Path(__file__).parents[1]


def fields(model: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """(dotted path, field, is a section) of everything below a model."""
    for name, field in model.model_fields.items():
        inner = [found for found in models_in(field.annotation) if issubclass(found, Section)]
        if get_origin(field.annotation) is dict:  # sources by name: each is one of those above it
            inner = []
        yield f"{prefix}{name}", field, bool(inner)
        for section in inner:
            yield from fields(section, f"{prefix}{name}.")


FIELDS = list(fields(Recipe))
LEAVES = [(path, field) for path, field, is_section in FIELDS if not is_section]


@pytest.mark.parametrize("name", list(models()))
def test_committed_schemas_are_in_sync(name: str) -> None:
    path = ROOT / "schemas" / f"{name}.schema.json"
    assert json.loads(path.read_text()) == schema(name), "run `make schemas`"
    Draft202012Validator.check_schema(schema(name))


def test_no_schema_is_left_over() -> None:
    assert {path.name for path in (ROOT / "schemas").iterdir()} == {f"{n}.schema.json" for n in models()}


def test_the_field_reference_is_in_sync() -> None:
    assert (ROOT / "docs" / "fields.md").read_text(encoding="utf-8") == reference(), "run `make schemas`"


def test_every_leaf_is_in_the_field_reference() -> None:
    text = reference()
    assert [path for path, _ in LEAVES if f"`{path}`" not in text] == []


@pytest.mark.parametrize(
    ("path", "field"), [f[:2] for f in FIELDS], ids=[f"{i}-{f[0]}" for i, f in enumerate(FIELDS)]
)
def test_every_field_is_described(path: str, field: Any) -> None:
    assert field.description, path
    assert field.description.endswith("."), path


@pytest.mark.parametrize(("path", "field"), LEAVES, ids=[f"{i}-{leaf[0]}" for i, leaf in enumerate(LEAVES)])
def test_every_leaf_has_owners(path: str, field: Any) -> None:
    assert owners(field), path
    assert set(owners(field)) <= {*MAKERS, EXECUTION, SOURCE}, path


def test_sections_stay_small() -> None:
    sizes = {name: len(model["properties"]) for name, model in schema("recipe")["$defs"].items()}
    assert {name: size for name, size in sizes.items() if size > 13} == {}
