"""Two recipes, or a recipe and its last build, side by side."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace import RECIPE, Folder, folder, pretend, publish_all

from workflow.diff import compare
from workflow.errors import BuildError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = folder(tmp_path_factory.mktemp("diff") / "it")
    pretend(place, "small")
    publish_all(place, "small")
    other = RECIPE.replace("r: 8", "r: 16").replace("processes: 1", "processes: 2")
    place.path("recipes/other.yaml").write_text(other)
    return place


@pytest.fixture
def place(finished: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    copy = finished.copy(tmp_path / "it")
    monkeypatch.chdir(copy.root)
    return copy


def parts(text: str) -> tuple[str, list[str], dict[str, str]]:
    """Title, fields, and product -> what is said of it."""
    title, fields, products = text.split("\n\n")
    return title, fields.splitlines(), dict(line.split(maxsplit=1) for line in products.splitlines())


def test_two_recipes(place: Folder) -> None:
    title, fields, products = parts(compare("small", "other", place.store))
    assert title == "small -> other"
    assert [re.split("  +", line) for line in fields] == [
        ["tuning.r 8 -> 16", "adapter"],
        ["execution.processes 1 -> 2", "how it runs; no product"],
    ]
    assert products["rows_train"].endswith("  the same")
    old, new = (place.graph(name).node("adapter").address[:8] for name in ("small", "other"))
    assert products["adapter"] == f"{old} -> {new}  tuning.r"
    assert products["merged"].endswith("  adapter")


def test_a_recipe_and_its_last_build(place: Folder) -> None:
    place.edit("small.yaml", "n: 3", "n: 5")
    place.edit("data/train.jsonl", "小明", "老明")
    for pair in (("small", "results/small"), ("results/small", "recipes/small.yaml")):
        title, fields, products = parts(compare(*pair, place.store))
        assert title.startswith("results/small -> ")
        assert [line.split("  ")[0].split(" (sha256")[0] for line in fields] == [
            "dataset.train: recipes/data/train.jsonl changed",
            "sampling.n 3 -> 5",
        ]
        assert products["rows_test"].endswith("  the same")
        assert products["predictions"].endswith("  sampling.n, merged")


def test_the_same_recipe(place: Folder) -> None:
    _, fields, products = parts(compare("small", "results/small", place.store))
    assert fields == ["no field differs"]
    assert all(said.endswith("  the same") for said in products.values())


def test_products_of_one_alone(place: Folder) -> None:
    assert parts(compare("small", "small-base", place.store))[2]["voted"].endswith("  only in the first")
    assert parts(compare("small-base", "small", place.store))[2]["voted"].endswith("  only in the second")


def test_a_deleted_recipe_has_a_last_build_still(place: Folder) -> None:
    place.path("recipes/small.yaml").unlink()
    assert "tuning.r 8 -> 16" in compare("results/small", "other", place.store)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("small", "nope", "recipes/nope.yaml: no such recipe"),
        ("small", "results/other", "results/other: nothing was published there yet; build it first"),
        ("results/small", "results/other", "both last builds"),
    ],
)
def test_what_is_not_there_is_one_line(place: Folder, one: str, other: str, said: str) -> None:
    with pytest.raises(BuildError, match=re.escape(said)) as error:
        compare(one, other, place.store)
    assert "\n" not in str(error.value)
