"""What a build would make and why, against a store and results that look built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import RECIPE, Folder, environment, folder, pretend, publish_all, record_run

from workflow import settle
from workflow.errors import BuildError
from workflow.products import VERSIONS
from workflow.why import Because, asked, explain

VOTED = "results/small/voted.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which `small` is built and published; its adapter took 1 h 52 min."""
    place = folder(tmp_path_factory.mktemp("why") / "it")
    pretend(place, "small")
    publish_all(place, "small")
    products = place.graph("small").products
    record_run(place, products["adapter"], seconds=6720, gpus=1, device="NVIDIA H200", threads=8)
    record_run(place, products["merged"], seconds=30, gpus=0, threads=2)
    return place


@pytest.fixture
def built(finished: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A copy that a test may change, as working directory."""
    place = finished.copy(tmp_path / "it")
    monkeypatch.chdir(place.root)
    monkeypatch.delenv("TUNEMAKE_STORE", raising=False)
    settle.draw.cache_clear()
    return place


def why(place: Folder, target: str = "small") -> dict[str, str]:
    """Product -> what is said of it; `total` is the last line."""
    text, _ = explain(target, place.store)
    lines = text.splitlines()
    return {**dict(line.split(maxsplit=1) for line in lines[:-2]), "total": lines[-1]}


def test_nothing_is_made_when_all_is_built(built: Folder) -> None:
    said = why(built)
    assert set(said.values()) - {said["total"]} == {"built"}
    assert said["total"] == "all of 19 products are built or linked; nothing is made"


def test_a_field_names_old_new_and_cost(built: Folder) -> None:
    built.edit("small.yaml", "r: 8", "r: 16")
    said = why(built, VOTED)
    assert said["adapter"] == "not built: tuning.r 8 -> 16; last time 1 h 52 min on 1 x H200"
    assert said["merged"] == "not built: because adapter changes; last time 30 s on 2 cores"
    assert said["predictions"] == "not built: because merged changes"
    assert said["rows_test"] == said["small-base/merged"] == "built"
    assert said["total"] == "4 of 14 products to make, about 1 h 52 min and 2 of unknown length"


def test_a_field_of_its_own_comes_before_what_follows(built: Folder) -> None:
    built.edit("small.yaml", "r: 8", "r: 16")
    built.edit("small.yaml", "n: 3", "n: 5")
    assert why(built)["predictions"] == "not built: sampling.n 3 -> 5; because merged changes"


def test_the_last_build_wins_over_older_files(built: Folder) -> None:
    built.edit("small.yaml", "r: 8", "r: 4")
    pretend(built, "small")
    for path in built.path("results/small").glob("*.*"):
        os.utime(path, (1.58e9, 1.58e9))
    publish_all(built, "small", ("voted.jsonl",))
    built.edit("small.yaml", "r: 4", "r: 2")
    assert why(built)["adapter"].startswith("not built: tuning.r 4 -> 2")


def test_row(place: Folder) -> None:
    place.edit("data/test.jsonl", "小刚", "老刚")


test_row.__test__ = False  # type: ignore[attr-defined]


def test_a_source_that_may_come_to_the_same(built: Folder) -> None:
    test_row(built)
    said = why(built)
    digests = r"\(sha256 [0-9a-f]{8} -> [0-9a-f]{8}\)"
    source = rf"not built: dataset\.test: recipes/data/test\.jsonl changed {digests}"
    assert re.fullmatch(source, said["rows_test"])
    cut = "cut off if rows_test turns out the same"
    assert said["shards_test"] == f"not built: because rows_test changes; {cut}"
    assert said["voted"] == f"not built: because predictions and rows_test change; {cut}"
    assert said["adapter"] == "built"
    built.edit("small.yaml", "temperature: 1.0", "temperature: 0.5")
    assert cut not in why(built)["predictions"]  # that is made in any case
    assert cut not in why(built)["voted"]


def template(place: Folder) -> None:
    place.edit("prompts/tiny.jinja", "{% block", "{# a comment #}{% block")


def model_folder(place: Folder) -> None:
    place.edit("models/tiny-qwen2/config.json", "{", "{ ")


def base_seed(place: Folder) -> None:
    place.edit("small-base.yaml", "seed: 3", "seed: 4")


def other_base(place: Folder) -> None:
    text = place.path("recipes/small-base.yaml").read_text()
    place.path("recipes/new-base.yaml").write_text(text.replace("epochs: 2", "epochs: 1"))
    place.edit("small.yaml", "recipe: small-base", "recipe: new-base")


def no_base(place: Folder) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    place.edit("small.yaml", "{recipe: small-base}", f"org/name, revision: {commit}")


def plain(place: Folder) -> None:
    place.edit("small.yaml", "deepspeed: {zero_stage: 2}\n", "")


CHANGES: list[tuple[Callable[[Folder], None], str, str]] = [
    (template, "shards_train", "prompt.template: recipes/prompts/tiny.jinja changed (sha256 "),
    (
        model_folder,
        "small-base/model",
        "small-base: model.base: recipes/models/tiny-qwen2/config.json changed",
    ),
    (base_seed, "small-base/adapter", "small-base: training.seed 3 -> 4"),
    (other_base, "new-base/adapter", "new-base: training.epochs 2 -> 1"),
    (no_base, "model", "model.base the merged model of a recipe -> org/name"),
    (plain, "adapter", "deepspeed.zero_stage 2 -> not set"),
]


@pytest.mark.parametrize(("edit", "product", "said"), CHANGES, ids=[edit.__name__ for edit, _, _ in CHANGES])
def test_every_kind_of_change_is_named(
    built: Folder, edit: Callable[[Folder], None], product: str, said: str
) -> None:
    edit(built)
    assert why(built)[product].startswith(f"not built: {said}")


def test_a_new_version_of_tunemake(built: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = VERSIONS["voted"]
    monkeypatch.setitem(VERSIONS, "voted", before + 1)
    assert why(built)["voted"] == f"not built: tunemake's version of voted {before} -> {before + 1}"


def test_a_new_recipe_learns_from_the_most_similar_product(built: Folder) -> None:
    built.edit("small.yaml", "r: 8", "r: 4")
    pretend(built, "small")
    adapter = built.graph("small").node("adapter")
    record_run(built, adapter, seconds=60, gpus=0, threads=4)
    built.path("recipes/new.yaml").write_text(RECIPE.replace("r: 8", "r: 4").replace("seed: 1", "seed: 2"))
    said = why(built, "recipes/new.yaml")
    assert said["adapter"] == "not built: never built before; a similar one took 1 min 00 s on 4 cores"
    built.path("recipes/new.yaml").write_text(RECIPE.replace("seed: 1", "seed: 2"))
    assert why(built, "new")["adapter"].endswith("a similar one took 1 h 52 min on 1 x H200")


def test_what_is_lost_is_said_to_be_lost(built: Folder) -> None:
    receipt = built.store.built("voted", built.graph("small").node("voted").address)
    assert receipt
    shutil.rmtree(built.store.folder("voted", receipt.key))
    assert why(built)["voted"] == "not built: its folder is gone"
    assert why(built)["scores"] == "built"


def test_a_lost_plan_is_no_error(built: Folder) -> None:
    built.store.file("adapter", built.graph("small").node("adapter").address, ".plan.json").write_text("{")
    built.edit("small.yaml", "r: 8", "r: 16")
    expected = "not built: changed; the plan of the last build cannot be read"
    assert why(built)["adapter"].startswith(expected)


def test_what_is_known_is_only_linked(built: Folder) -> None:
    """An empty line in the data: the rows were made again and are the same; all behind them is known."""
    receipt = built.store.built("rows", built.graph("small").node("rows_test").address)
    assert receipt
    text = (built.store.folder("rows", receipt.key) / "content").read_text()
    built.edit("data/test.jsonl", "}\n", "}\n\n")
    left = tuple(name for name in built.graph("small").products if name != "rows_test")
    pretend(built, "small", {"rows": text}, leave=left)
    said = why(built)
    assert said["rows_test"].startswith("built; new since the last build: dataset.test: ")
    known = "not built: because rows_test changes; its content is known and only linked"
    assert said["shards_test"] == known
    assert said["voted"] == known.replace("rows_test changes", "predictions and rows_test change")
    assert said["total"] == "all of 19 products are built or linked; nothing is made"


def test_an_unpinned_model_cannot_be_made(built: Folder) -> None:
    built.edit("small.yaml", "{recipe: small-base}", "org/name, revision: unpinned")
    text, stops = explain("small", built.store)
    assert stops == 2  # tokenizer and model
    assert (
        "cannot be made: model.revision of org/name is unpinned: run `tunemake lock recipes/small.yaml`"
        in text
    )
    assert text.endswith("products to make, but the build would stop")


def test_lines_are_wrapped_to_the_terminal(built: Folder) -> None:
    built.edit("small.yaml", "r: 8", "r: 16")
    text, _ = explain("small", built.store, width=60)
    assert max(map(len, text.splitlines())) <= 60
    adapter = [
        "adapter                  not built: tuning.r 8 -> 16; last",
        " " * 25 + "time 1 h 52 min on 1 x H200",
    ]
    assert "\n".join(adapter) in text


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("smal", "did you mean small"),
        ("results/gone/voted.jsonl", "recipes/gone.yaml: no such recipe"),
        ("results/small/votes", "no such file; there are: adapter, "),
        ("../small", "is not a recipe name"),
    ],
)
def test_what_is_not_there_is_one_line(built: Folder, target: str, said: str) -> None:
    with pytest.raises(BuildError, match=re.escape(said)) as error:
        explain(target, built.store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"voted.jsonl": {"product": "voted"}}', '{"a": 1}'])
def test_a_damaged_record_of_what_is_published_is_one_line(built: Folder, text: str) -> None:
    built.path("results/small/built.json").write_text(text)
    with pytest.raises(BuildError, match=r"results/small/built\.json: damaged"):
        explain("small", built.store)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("small", (Path("recipes"), "small", None)),
        ("elsewhere/x.yaml", (Path("elsewhere"), "x", None)),
        ("results/small/", (Path("recipes"), "small", None)),
        (VOTED, (Path("recipes"), "small", ["voted.jsonl"])),
    ],
)
def test_what_a_person_types(typed: str, meant: object) -> None:
    assert asked(typed) == meant


def test_a_process_that_drew_nothing_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_asked", {})
    assert f"{Because():{'ab' * 16}}" == "abababab"


def test_a_damaged_record_does_not_stop_a_build(built: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_asked", {"small": None})
    built.path("results/small/built.json").write_text("{")
    assert f"{Because():{'ab' * 16}}" == "abababab"


def test_snakemake_shows_the_reasons(built: Folder) -> None:
    built.edit("small.yaml", "ties: first", "ties: abstain")
    run = built.snakemake("-n", "results/small/scores.json")
    found = re.findall(r"^Job \d+: (.*)", run.stdout + run.stderr, re.M)
    products = built.graph("small").products
    voted, scores = products["voted"].address[:8], products["scores"].address[:8]
    assert found[:2] == [
        f"voted {voted} of small: voting.ties first -> abstain",
        f"scores {scores} of small: because voted changes",
    ]
    assert re.fullmatch(rf"results/small/scores.json shows scores [0-9a-f]{{8}} -> {scores}", found[2])
    assert "Missing output files" not in run.stdout + run.stderr


def test_the_command_line(built: Folder) -> None:
    built.edit("small.yaml", "n: 3", "n: 4")
    command = [sys.executable, "-m", "workflow", "why", VOTED]
    run = subprocess.run(command, cwd=built.root, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0
    assert "\npredictions              not built: sampling.n 3 -> 4\n" in run.stdout
