"""What Snakemake plans after an edit, a revert, a loss: real `snakemake -n` over a store that looks built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import RECIPE, Folder, environment, folder, pretend

NAMES = ("adapter", "predictions.jsonl", "voted.jsonl", "scores.json", "report.html")
TARGETS = [f"results/small/{name}" for name in NAMES]
VOTED = "results/small/voted.jsonl"
BEHIND_VOTES = {"voted": 1, "scores": 1, "report": 1}
DATA = {"rows": 1, "shards": 1, "overlap": 1}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which the recipe `small` is built and published."""
    place = folder(tmp_path_factory.mktemp("finished") / "it")
    pretend(place, "small")
    printed = place.build(*TARGETS)
    assert "not scored" in printed  # the closing table
    return place


@pytest.fixture
def built(finished: Folder, tmp_path: Path) -> Folder:
    """A copy that a test may change."""
    return finished.copy(tmp_path / "it")


def train_row(place: Folder) -> None:
    """Edit a row, with a date that is older than everything built from it."""
    place.edit("data/train.jsonl", "小明", "老明")
    os.utime(place.path("recipes/data/train.jsonl"), (1.58e9, 1.58e9))  # in 2020


def test_row(place: Folder) -> None:
    place.edit("data/test.jsonl", "小刚", "老刚")


test_row.__test__ = False  # type: ignore[attr-defined]


def voting(place: Folder) -> None:
    place.edit("small.yaml", "ties: first", "ties: abstain")


def temperature(place: Folder) -> None:
    place.edit("small.yaml", "temperature: 1.0", "temperature: 0.7")


def base_seed(place: Folder) -> None:
    """The recipe that makes the base: its adapter, and everything behind; the data are not touched."""
    place.edit("small-base.yaml", "seed: 3", "seed: 4")


EDITS: list[tuple[Callable[[Folder], None], dict[str, int]]] = [
    (
        train_row,
        {
            **DATA,
            "adapter": 1,
            "merged": 1,
            "predictions": 2,
            **BEHIND_VOTES,
            "publish": 3,
            "publish_report": 1,
            "publish_folder": 1,
        },
    ),
    (test_row, {**DATA, "predictions": 3, **BEHIND_VOTES, "publish": 3, "publish_report": 1}),
    (voting, {**BEHIND_VOTES, "publish": 2, "publish_report": 1}),
    (temperature, {"predictions": 1, **BEHIND_VOTES, "publish": 3, "publish_report": 1}),
    (
        base_seed,
        {
            "adapter": 2,
            "merged": 2,
            "predictions": 3,
            **BEHIND_VOTES,
            "publish": 3,
            "publish_report": 1,
            "publish_folder": 1,
        },
    ),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=[edit.__name__ for edit, _ in EDITS])
def test_an_edit_plans_what_depends_on_it(
    built: Folder, edit: Callable[[Folder], None], expected: dict[str, int]
) -> None:
    edit(built)
    assert built.planned(*TARGETS) == expected


def nothing(place: Folder) -> None:
    pass


def how_it_runs(place: Folder) -> None:
    place.edit("small.yaml", "{processes: 1, save_steps: 2}", "{processes: 2, micro_batch: 1, save_steps: 5}")


def form(place: Folder) -> None:
    """A comment, other quotes, another way to write a number, keys in another order."""
    place.edit("small.yaml", "dataset:", "# a comment\ndataset:")
    place.edit("small.yaml", "learning_rate: 3e-3", "learning_rate: 0.003")
    place.edit("small.yaml", "{zero_stage: 2}", "\n  zero_stage: 2   # sharded")
    place.edit("small.yaml", "'([A-D])', match: last", '"([A-D])", "match": last')
    place.edit("small.yaml", "{n: 3, temperature: 1.0", "{temperature: 1, n: 3")


def touch(place: Folder) -> None:
    for path in place.path("recipes").rglob("*"):
        os.utime(path)


def lost_memory(place: Folder) -> None:
    shutil.rmtree(place.path(".snakemake"))


def lost_stamps(place: Folder) -> None:
    for path in place.path("store").rglob("*.stamp"):
        path.unlink()


def evicted(place: Folder) -> None:
    """The merged model's folder is deleted to make room; its predictions exist."""
    receipt = place.store.receipt("merged", place.graph("small").node("merged").address)
    assert receipt
    shutil.rmtree(place.store.folder("merged", receipt.key))


def rewritten_data(place: Folder) -> None:
    """The same bytes in a new file, as after `git checkout`."""
    for path in place.path("recipes/data").iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)


UNHARMED = [nothing, how_it_runs, form, touch, lost_memory, lost_stamps, evicted, rewritten_data]


@pytest.mark.parametrize("event", UNHARMED, ids=lambda event: event.__name__)
def test_what_changes_no_product_plans_nothing(built: Folder, event: Callable[[Folder], None]) -> None:
    event(built)
    assert built.planned(*TARGETS) == {}


def test_everything_at_once_still_plans_nothing(built: Folder) -> None:
    for event in (how_it_runs, form, touch, lost_memory, lost_stamps, evicted):
        event(built)
    assert built.planned(*TARGETS) == {}
    assert built.planned("results/small/merged") == {
        "merged": 1,
        "publish_folder": 1,
    }  # asked for: made again


def test_a_copied_recipe_shares_what_it_does_not_change(built: Folder) -> None:
    built.path("recipes/other.yaml").write_text(RECIPE.replace("r: 8", "r: 4"))
    expected = {"adapter": 1, "merged": 1, "predictions": 1, "voted": 1, "publish": 1}
    assert built.planned("results/other/voted.jsonl") == expected
    assert built.planned("results/other/voted.jsonl", *TARGETS) == expected


def test_ten_recipes_make_shared_products_once(tmp_path: Path) -> None:
    place = folder(tmp_path / "w")
    for rank in range(1, 11):
        place.path(f"recipes/r{rank}.yaml").write_text(RECIPE.replace("r: 8", f"r: {rank}"))
    own = dict.fromkeys(("merged", "predictions", "voted", "publish"), 10)
    base = {"tokenizer": 1, "model": 1, "adapter": 1 + 10, "merged": 1 + 10}
    shared = {"rows": 3, "shards": 3}  # training and test rows, and the base's
    files = [f"results/r{rank}/voted.jsonl" for rank in range(1, 11)]
    assert place.planned(*files) == own | shared | base


def test_edit_and_revert_publish_again_and_no_more(built: Folder) -> None:
    old = built.path(VOTED).read_text()
    voting(built)
    pretend(built, "small")
    assert built.planned(VOTED) == {"publish": 1}
    built.build(VOTED)
    new = built.path(VOTED).read_text()
    assert new != old
    lost_memory(built)
    built.path("recipes/small.yaml").write_text(RECIPE)
    built.build(VOTED)
    assert built.path(VOTED).read_text() == old
    assert built.planned(VOTED) == {}


def test_a_forgotten_product_is_planned_again(built: Folder) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "workflow", "forget", "small", "adapter"],
        cwd=built.root, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.count("removed ") == 3  # receipt, stamp, folder
    expected = {
        "adapter": 1,
        "merged": 1,
        "predictions": 2,
        **BEHIND_VOTES,
        "publish": 3,
        "publish_report": 1,
        "publish_folder": 1,
    }
    assert built.planned(*TARGETS) == expected
