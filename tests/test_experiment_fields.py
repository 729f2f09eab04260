"""Every field of an experiment is described, and decides exactly the products that it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_arms import RANKS, write
from workspace import Folder, folder

from workflow.fields import field_of, flat
from workflow.recipe.experiment import Experiment
from workflow.recipe.leaf import SOURCE, models_in, owners
from workflow.reference import reference

MAIN = RANKS + "review: {arm: r4, rows: 3, seed: 1, sheet: reviews/a.csv}\n"
MATRIX = RANKS.partition("arms")[0] + "matrix: {tuning.r: [4, 16]}\n"
EDITS = {
    "question": ("Which rank", "What rank", MAIN),
    "baseline": ("baseline: small", "baseline: same-small", MAIN),
    "factors": ("rank of", "ranks of", MAIN),
    "arms.set": ("r: 16}", "r: 32}", MAIN),
    "arms.recipe": ("r16: {set: {tuning.r: 16}}", "r16: {recipe: sixteen}", MAIN),
    "matrix": ("[4, 16]", "[4, 32]", MATRIX),
    "review.arm": ("arm: r4", "arm: r16", MAIN),
    "review.rows": ("rows: 3", "rows: 4", MAIN),
    "review.seed": ("seed: 1", "seed: 2", MAIN),
    "review.sheet": ("a.csv", "b.csv", MAIN),
}


def leaves(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if owners(field):
            yield f"{prefix}{name}", field
        for inner in models_in(field.annotation):
            yield from leaves(inner, f"{prefix}{name}.")


LEAVES = dict(leaves(Experiment))


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    found = folder(tmp_path / "it")
    text = found.path("recipes/small.yaml").read_text()
    found.path("recipes/same-small.yaml").write_text(text)
    found.path("recipes/sixteen.yaml").write_text(text.replace("r: 8", "r: 16"))
    found.path("recipes/experiments/reviews").mkdir(parents=True)
    for name in ("a", "b"):
        found.path(f"recipes/experiments/reviews/{name}.csv").write_text(name)
    return found


def test_every_leaf_is_edited_here_and_in_the_reference() -> None:
    assert LEAVES.keys() == EDITS.keys()
    text = reference()
    for path, field in LEAVES.items():
        assert field.description.endswith("."), path
        assert f"`{path.replace('arms.', 'arms.<name>.')}`" in text


@pytest.mark.parametrize("path", EDITS)
def test_what_a_field_decides(place: Folder, path: str) -> None:
    old, new, text = EDITS[path]
    assert text.count(old) == 1
    before = write(place, text).graph("experiments/ranks").products
    after = write(place, text.replace(old, new)).graph("experiments/ranks").products
    changed = {
        name
        for name in ("experiment", "review")
        if name in before and before[name].address != after[name].address
    }
    expected = {"experiment"} if owners(LEAVES[path]) == (SOURCE,) else set(owners(LEAVES[path]))
    behind = {"experiment"} if "review" in expected else set()  # what reads the sheet's key
    also = {"review"} if path == "review.arm" else set()  # other answers are other inputs
    assert changed == expected | behind | also


def test_places_are_named_in_the_experiments_own_words(place: Folder) -> None:
    products = write(place, MAIN).graph("experiments/ranks").products
    named = {
        field_of(name, name, products[name].slice, place)
        for name in ("experiment", "review")
        for place, _ in flat(products[name].slice)
    }
    assert {"question", "factors.tuning.r", "review.rows", "review.seed", "review.arm"} <= named
