"""The recipe's own words for what decides a product: from a place in a slice to a field of the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_MODEL = {
    "hub": "model.base",
    "scratch": "model.base",
    "stand_in": "model.base.stand_in.family",
    "": "model",
}
SECTIONS: dict[str, dict[str, str]] = {
    "rows": {"split": "dataset.split", "": "dataset.{split}"},
    "mixture": {"": "dataset.{split}"},
    "shards": {"gate": "gate", "": "prompt"},
    "overlap": {"": "gate"},
    "tokenizer": _MODEL,
    "model": _MODEL,
    "adapter": {"": ""},
    "merged": {"": "tuning"},
    "predictions": {"prompt": "prompt", "": ""},
    "voted": {"": "voting"},
    "scores": {"answer": "voting.answer", "": "scoring"},
    "report": {"recipe": ""},
    "review": {"": "review"},
    "experiment": {"arm": "review.arm", "": ""},
    "served": {"": ""},
}
"""Product -> first key of a slice -> the recipe's section that it is taken from; "" is every other key."""

OWN = {
    ("rows", "split.part"),
    ("shards", "split"),
    ("shards", "variant"),
    ("predictions", "prompt.split"),
    ("predictions", "prompt.variant"),
    *((p, "scratch") for p in ("model", "tokenizer")),
}
"""Places in slices that no field of a recipe sets: they tell products of one kind apart."""

SOURCES = {
    "rows": "dataset.{split}",
    "shards": "prompt.template",
    "predictions": "prompt.template",
    "served": "prompt.template",
    "adapter": "deepspeed.config",
    "scores": "scoring.answer_schema",
    "model": "model.base",
    "tokenizer": "model.base",
    "experiment": "review.sheet",
}
"""Product -> the section that names its source files."""


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in nested mappings that is not a mapping itself."""
    for key, inner in value.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict) and inner:
            yield from flat(inner, path)
        else:
            yield path, inner


def field_of(product: str, name: str, chosen: dict[str, Any], place: str) -> str | None:
    """The field of the recipe behind a place in a slice.

    Args:
        product: Kind of product.
        name: Its name in the graph; `rows_train` and `rows_test` take from different sections.
        chosen: The whole slice.
        place: Dotted path in it, e.g. `answer.pattern`.

    Returns:
        E.g. `voting.answer.pattern`; None for a place that no field sets.
    """
    if (product, place) in OWN:
        return None
    sections = SECTIONS.get(product, {"": product})
    first, _, rest = place.partition(".")
    section, inner = (sections[first], rest) if first in sections else (sections.get("", product), place)
    return ".".join(part for part in (_split(section, name, chosen), inner) if part)


def source_of(product: str, name: str, chosen: dict[str, Any], role: str = "") -> str:
    """The section of the recipe that names a product's source files of a role; the rest as `field_of`."""
    if product == "predictions" and role == "json_schema":
        return "sampling.constraint.json_schema"
    variant = name.rpartition("/")[2].partition(".")[2]
    if product in ("shards", "predictions") and variant:
        return f"prompt.variants.{variant}"
    return _split(SOURCES.get(product, product), name, chosen)


def _split(section: str, name: str, chosen: dict[str, Any]) -> str:
    """Test rows that are a share of the training file take from its section; `source_train.x` from its x."""
    whole, _, source = name.partition(".")
    split = "train" if "split" in chosen else whole.rpartition("_")[2]
    return section.format(split=f"{split}.sources.{source}" if source else split)
