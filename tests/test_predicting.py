"""New rows in place of a recipe's test rows: what is made for them, and what is not made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspace import RECIPE, Folder, folder

from workflow.errors import BuildError
from workflow.predicting import asked, written
from workflow.settle import draw

SPLIT = RECIPE.replace("  test: {path: data/test.jsonl, format: round1}\n", "  split: {test: 0.5}\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    draw.cache_clear()
    found = folder(tmp_path)
    found.path("new.jsonl").write_text(found.path("recipes/data/test.jsonl").read_text().splitlines()[0])
    return found


@pytest.mark.parametrize("text", [RECIPE, SPLIT])
def test_only_what_is_about_the_new_rows_is_made(place: Folder, text: str) -> None:
    place.path("recipes/small.yaml").write_text(text)
    nodes = asked("small", Path("new.jsonl"))
    assert [node.product for node in nodes.values()] == ["predictions", "voted"]
    own = {node.address for node in place.graph("small").nodes.values()}
    made = {inner.address: inner.product for node in nodes.values() for inner in node.closure()}
    new = [product for address, product in made.items() if address not in own]
    assert sorted(new) == ["predictions", "rows", "shards", "voted"]


def test_the_recipes_own_test_rows_need_nothing_new(place: Folder) -> None:
    nodes = asked("small", Path("recipes/data/test.jsonl"))
    assert {node.address for node in nodes.values()} <= place.graph("small").nodes.keys()


def test_conditions_and_digests_are_of_the_recipes_own_rows(place: Folder) -> None:
    more = f"test.jsonl, format: round1, sample: {{n: 1}}, bad_rows: 3, sha256: {'a' * 64}"
    place.edit("small.yaml", "test.jsonl, format: round1", more)
    place.path("recipes/data/test.jsonl").unlink()
    _, voted = asked("small", Path("new.jsonl")).values()
    assert voted.inputs["rows"].slice["bad_rows"] == 0


def test_other_recipes_that_vote_are_asked_the_new_rows(place: Folder) -> None:
    place.path("recipes/other.yaml").write_text(RECIPE.replace("r: 8", "r: 4"))
    place.edit("small.yaml", "rule: majority", "rule: majority, members: [other]")
    *_, voted = asked("small", Path("new.jsonl")).values()
    rows = {inner.address for inner in voted.closure() if inner.product == "rows"}
    assert voted.inputs["rows"].address in rows
    assert not rows & {place.graph("other").node("rows_test").address}


def test_what_cannot_be_asked(place: Folder) -> None:
    with pytest.raises(BuildError, match=r"nothing.jsonl: no such file"):
        asked("small", Path("nothing.jsonl"))
    with pytest.raises(BuildError, match="no section sampling"):
        asked("small-base", Path("new.jsonl"))
    one = "{path: data/test.jsonl, format: round1}"
    place.edit("small.yaml", one, f"{{format: mixture, sources: {{a: {one}}}}}")
    draw.cache_clear()
    with pytest.raises(BuildError, match="mixture of formats"):
        asked("small", Path("new.jsonl"))


def test_nothing_is_copied_before_it_is_built(place: Folder) -> None:
    nodes = asked("small", Path("new.jsonl"))
    with pytest.raises(BuildError, match="is not built"):
        list(written(nodes.values(), Path("new.jsonl")))
