"""The base of all recipe sections, and the declaration which products a field decides.

A *leaf* is a field that holds a value, not a section. `leaf(of=("adapter",))` says that the value
goes into the slice, and so into the address, of these products and of no other. Sections are plain
fields. `slice_of` reads the declaration back: what is declared is what is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

EXECUTION = "execution"
"""Owner of leaves that say how something runs: recorded, in no address."""

SOURCE = "source"
"""Owner of leaves that name or check a source file, whose *content* goes into the address."""


class Section(BaseModel):
    """A group of recipe fields: unknown keys are errors and values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def leaf(default: Any = ..., *, of: tuple[str, ...], description: str, **constraints: Any) -> Any:
    """Declare a recipe field.

    Args:
        default: Value when the recipe does not say; `...` makes the field obligatory.
        of: Products whose bytes the value decides, or `(EXECUTION,)`, or `(SOURCE,)`.
        description: One sentence with the unit, shown in the schema and the field reference.
        constraints: Passed on to `pydantic.Field` (`gt`, `le`, `pattern`, ...).
    """
    return Field(default, description=description, json_schema_extra={"x-products": list(of)}, **constraints)


def owners(field: FieldInfo) -> tuple[str, ...]:
    """The products that `field` was declared to decide; empty for a section."""
    extra = field.json_schema_extra
    if not isinstance(extra, dict):
        return ()
    declared = extra.get("x-products", [])
    return tuple(str(owner) for owner in declared) if isinstance(declared, list) else ()


def slice_of(section: Section, product: str) -> dict[str, Any]:
    """The leaves of `section` and of the sections inside it that decide `product`, defaults filled in.

    Returns:
        Nested plain JSON values; sections without a leaf of this product are left out.
    """
    return _chosen(section, section.model_dump(mode="json"), product)


def _chosen(section: Section, dumped: dict[str, Any], product: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, products in _declared(type(section)).items():
        value = getattr(section, name)
        if isinstance(value, Section):
            if inner := _chosen(value, dumped[name], product):
                chosen[name] = inner
        elif product in products:
            chosen[name] = dumped[name]
    return chosen


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a field may hold, in itself, in a list or in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in models_in(inner)]


def fields_below(model: type[BaseModel], parts: Sequence[str | int]) -> list[str] | None:
    """Names of the fields that may stand below a place in a section; None: any name may, it is a mapping."""
    models, named = [model], False
    for part in parts:
        if named:  # the name of something in a mapping
            named = False
            continue
        fields = [found.model_fields[str(part)] for found in models if str(part) in found.model_fields]
        models = [inner for field in fields for inner in models_in(field.annotation)]
        named = any(_is_mapping(field.annotation) for field in fields)
    return None if named else sorted({name for found in models for name in found.model_fields})


def _is_mapping(annotation: Any) -> bool:
    if getattr(annotation, "__origin__", None) is dict:
        return True
    return any(_is_mapping(inner) for inner in getattr(annotation, "__args__", ()))


@cache
def _declared(section: type[Section]) -> dict[str, tuple[str, ...]]:
    """Field -> its owners."""
    return {name: owners(field) for name, field in section.model_fields.items()}
