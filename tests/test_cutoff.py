"""Early cut-off: sources whose bytes changed and whose rows or tokens did not cost one small product.

Rows, shards, tokenizer and model are real; what is behind them stands in the store as if it had been made,
under the keys that their real content gives. So a product that is made again can be told by its new folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import workspace
from tests.workspace import Folder

pytestmark = pytest.mark.slow

COLUMNS = workspace.RECIPE.replace(
    "train: {path: data/train.jsonl, format: round1}",
    "train: {path: data/train.jsonl, format: columns, prompt: {problem: text, question: ask, options: from}, "
    "target: {reasoning: why, answer: right}, id: key}",
)


def table(folder: Path) -> list[dict[str, Any]]:
    """The training problems as a table with one question a row."""
    found = []
    for line in (folder / "data/train.jsonl").read_text().splitlines():
        record = json.loads(line)
        question = record["questions"][0]
        found.append({
            "key": record.get("id", str(len(found))), "text": record["problem"], "ask": question["question"],
            "from": question["options"], "right": question["answer"], "why": question.get("reasoning", "so"),
            "unused": "x",
        })  # fmt: skip
    return found


def write(place: Folder, rows: list[dict[str, Any]], **how: Any) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, **how) + "\n" for row in rows)
    place.path("recipes/data/train.jsonl").write_text(text)


def reordered_keys(place: Folder, rows: list[dict[str, Any]]) -> None:
    write(place, [dict(reversed(row.items())) for row in rows])


def white_space(place: Folder, rows: list[dict[str, Any]]) -> None:
    write(place, rows, separators=(" , ", " : "))


def unused_column(place: Folder, rows: list[dict[str, Any]]) -> None:
    write(place, [row | {"unused": "y", "more": 1} for row in rows])


def reordered_rows(place: Folder, rows: list[dict[str, Any]]) -> None:
    write(place, rows[::-1])


def json_list(place: Folder, rows: list[dict[str, Any]]) -> None:
    place.path("recipes/data/train.json").write_text(json.dumps(rows, indent=2))
    place.edit("small.yaml", "data/train.jsonl", "data/train.json")


def comment_in_template(place: Folder, rows: list[dict[str, Any]]) -> None:
    path = place.path("recipes/prompts/tiny.jinja")
    path.write_text("{# says nothing #}" + path.read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = workspace.folder(tmp_path_factory.mktemp("cutoff") / "w", base=2, train=4, test=2)
    write(place, table(place.path("recipes")))
    place.path("recipes/small.yaml").write_text(COLUMNS)
    place.make("small", "shards_test", "shards_train", "model")
    workspace.pretend(place, "small")
    place.build("results/small/voted.jsonl", "results/small/adapter", "--cores", "2")
    return place


def folders(place: Folder) -> dict[str, set[str]]:
    """Product -> its keys."""
    found: dict[str, set[str]] = {}
    for manifest in place.path("store").glob("*/*/manifest.json"):
        found.setdefault(manifest.parts[-3], set()).add(manifest.parts[-2])
    return found


@pytest.mark.parametrize(
    ("edit", "again"),
    [
        (reordered_keys, {"rows"}),
        (white_space, {"rows"}),
        (unused_column, {"rows"}),
        (reordered_rows, {"rows"}),
        (json_list, {"rows"}),
        (comment_in_template, {"shards"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_the_first_product_is_made_again(
    built: Folder, tmp_path: Path, edit: Callable[[Folder, list[dict[str, Any]]], None], again: set[str]
) -> None:
    place = built.copy(tmp_path / "w")
    before = folders(place)
    old = place.graph("small").node("voted").address
    edit(place, list(map(json.loads, place.path("recipes/data/train.jsonl").read_text().splitlines())))
    new = place.graph("small").node("voted").address
    assert new != old
    place.build("results/small/voted.jsonl", "results/small/adapter", "--cores", "2")
    after = folders(place)
    assert {product for product in after if after[product] != before[product]} == again
    assert place.store.built("voted", new)
    assert place.planned("results/small/voted.jsonl", "results/small/adapter") == {}
