"""Data sets of the hub, and folders laid out like one: what decides their rows, and reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import test_hub
from pyarrow import parquet
from workspace import RECIPE, Folder, folder

from workflow import hub
from workflow.errors import BuildError
from workflow.node import Node
from workflow.pinning import pin_data
from workflow.problems import problems_of
from workflow.products import rows
from workflow.store.build import Job

server = test_hub.server
COMMIT = test_hub.COMMIT
OLD = "train: {path: data/train.jsonl, format: round1}"
PAIRS = "train: {path: {hub: HUB, split: train}, format: prompt_response}"


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    """Recipes beside a data set of two Parquet files and one hidden."""
    found = folder(tmp_path / "w")
    data = found.path("recipes/sets/pairs/data")
    data.mkdir(parents=True)
    (data / ".hidden").write_text("x")
    for name, texts in (("train", "abc"), ("test", "d")):
        table = pyarrow.table({"prompt": list(texts), "response": [text.upper() for text in texts]})
        parquet.write_table(table, data / f"{name}-00000-of-00001.parquet")
    return found


def node(place: Folder, hub: str = "sets/pairs", **change: str) -> Node:
    text = RECIPE.replace(OLD, PAIRS.replace("HUB", hub))
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    place.path("recipes/small.yaml").write_text(text)
    return place.graph("small").node("rows_train")


def made(node: Node, tmp_path: Path) -> list[Any]:
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    rows.make(Job(node.slice, {}, node.sources, out, work, tmp_path))
    found = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    return sorted([row["prompt"]["prompt"], row["gold"]] for row in found)


def test_a_folder_is_read_as_a_data_set(place: Folder, tmp_path: Path) -> None:
    assert made(node(place), tmp_path) == [["a", ["A"]], ["b", ["B"]], ["c", ["C"]]]
    assert made(node(place, train="train", **{"split: train": "split: test"}), tmp_path) == [["d", ["D"]]]


def test_files_decide_and_their_folder_does_not(place: Folder) -> None:
    before = node(place)
    assert sorted(before.sources) == [
        "data/data/test-00000-of-00001.parquet",
        "data/data/train-00000-of-00001.parquet",
    ]
    place.path("recipes/sets/pairs").rename(place.path("recipes/sets/moved"))
    assert node(place, "sets/moved").address == before.address
    place.path("recipes/sets/moved/data/.hidden").write_text("y")
    assert node(place, "sets/moved").address == before.address
    assert node(place, "sets/moved", **{"split: train": "split: test"}).address != before.address
    place.path("recipes/sets/moved/README.md").write_text("x")
    assert node(place, "sets/moved").address != before.address


def test_only_files_of_the_plan_are_read(place: Folder, tmp_path: Path) -> None:
    planned = node(place)
    more = place.path("recipes/sets/pairs/data/train-00001-of-00002.parquet")
    parquet.write_table(pyarrow.table({"prompt": ["z"], "response": ["Z"]}), more)
    assert len(made(planned, tmp_path)) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split: train", "split: nope", r"the data set, split nope: Bad split: nope\. Available.*'test'"),
        ("split: train", "split: train, config: nope", "BuilderConfig 'nope' not found"),
    ],
)
def test_what_it_does_not_have_is_one_line(
    place: Folder, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        made(node(place, **{old: new}), tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_folders(place: Folder, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"sets/gone: no such folder; for a data set of the hub add its rev"):
        node(place, "sets/gone")
    place.path("recipes/sets/empty").mkdir()
    with pytest.raises(BuildError, match="there is no file in it"):
        node(place, "sets/empty")
    place.path("recipes/sets/pairs/data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(BuildError, match="the data set, split train: .*; correct the recipe or the data"):
        made(node(place), tmp_path)


def test_a_revision_decides_and_is_needed(place: Folder) -> None:
    revision = {"split: train": f"split: train, revision: {COMMIT}"}
    pinned = node(place, "org/name", **revision)
    assert (pinned.sources, problems_of(pinned)) == ({}, [])
    assert pinned.slice["path"] == {
        "hub": "org/name",
        "revision": COMMIT,
        "split": "train",
        "config": None,
    }
    unpinned = node(place, "org/name", **{"split: train": "split: train, revision: unpinned"})
    assert unpinned.address != pinned.address
    [problem] = problems_of(unpinned)
    assert problem.startswith("the revision of org/name is unpinned: run `tunemake lock ")
    assert "dataset.train is of the hub" in pin_data(place.path("recipes/small.yaml"))[0]


def test_a_data_set_is_fetched_by_commit(
    server: type[test_hub.Handler], place: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b'{"prompt": "q", "response": "a"}\n'
    monkeypatch.setattr(test_hub, "FILES", {"train.jsonl": body, "test.jsonl": body * 2, "script.py": b"1/0"})
    pinned = node(place, "org/name", **{"split: train": f"split: train, revision: {COMMIT}"})
    assert made(pinned, tmp_path) == [["q", ["a"]]]
    files = hub.fetch_data("org/name", COMMIT).iterdir()
    assert {path.name for path in files} == {"train.jsonl", "test.jsonl"}
    server.status = 401
    assert "org/other: not found on the hub" in test_hub.message(hub.fetch_data, "org/other", COMMIT)


def test_lock_pins_models_and_data(server: type[test_hub.Handler], tmp_path: Path) -> None:
    text = test_hub.RECIPE.replace(
        "{path: test.jsonl, format: round1}",
        "{path: {hub: org/data, revision: unpinned, split: test}, format: round1}",
    )
    path = tmp_path / "x.yaml"
    path.write_text(text)
    said = hub.lock(path).splitlines()
    assert said == [f"{path}: {name} is now pinned at {COMMIT}" for name in ("org/data", "org/name")]
    assert path.read_text() == text.replace("revision: unpinned", f"revision: {COMMIT}")
    assert all("pinned already" in line for line in hub.lock(path).splitlines())
