"""What a build of many recipes would make, without Snakemake."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspace import RECIPE, Folder, folder, pretend, record_run

from workflow.cli import main
from workflow.forecast import forecast
from workflow.why import explain


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """`small` is built, `a` and `b` share an adapter that is not, `bad` cannot be read."""
    place = folder(tmp_path / "it")
    pretend(place, "small")
    record_run(place, place.graph("small").node("adapter"), seconds=100, gpus=0, threads=2)
    for name, draws in (("a", 4), ("b", 5)):
        text = RECIPE.replace("r: 8", "r: 4").replace("n: 3", f"n: {draws}").replace("compare: [base]", "")
        place.path(f"recipes/{name}.yaml").write_text(text)
    place.path("recipes/bad.yaml").write_text(RECIPE.replace("r: 8", "r: 8, rank: 8"))
    monkeypatch.chdir(place.root)
    monkeypatch.delenv("TUNEMAKE_STORE", raising=False)
    return place


def test_shared_products_count_once(built: Folder) -> None:
    text, stopped = forecast(["a", "b", "small"], built.store)
    lines = text.splitlines()
    made = "to make: adapter, merged, predictions, voted, greedy, scores, report"
    assert lines[:3] == [f"a      {made}", f"b      {made}", "small  built"]
    # adapter, merged and greedy are shared
    assert lines[4] == "3 recipes: 1 built, 2 to build; 11 jobs, about 1 min 40 s and 10 of unknown length"
    assert stopped == 0


def test_a_recipe_that_cannot_be_built_says_why(built: Folder) -> None:
    built.edit("b.yaml", "{recipe: small-base}", "org/name, revision: unpinned")
    text, stopped = forecast(["bad", "b", "small"], built.store)
    lines = text.splitlines()
    assert lines[0].startswith("bad    cannot: recipes/bad.yaml:6:30: tuning.rank: unknown key")
    assert lines[1].startswith(
        "b      cannot: model.revision of org/name is unpinned: run `tunemake lock recipes/b.yaml`"
    )
    assert lines[4] == "3 recipes: 1 built, 2 cannot be built"
    assert stopped == 2


def test_the_command_line(built: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "recipes/small-base.yaml"]) == 0
    assert capsys.readouterr().out.endswith("2 recipes: 2 built\n")
    assert main(["plan", "--all"]) == 2
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[:5]] == [
        "a",
        "b",
        "bad",
        "small",
        "small-base",
    ]
    assert main(["plan", "a"]) == 0  # one recipe: product by product
    assert (
        "adapter                  not built: never built before; a similar one took"
        in capsys.readouterr().out
    )


def test_nothing_is_written(built: Folder) -> None:
    before = sorted(built.path("store").rglob("*"))
    forecast(["a", "small"], built.store)
    assert sorted(built.path("store").rglob("*")) == before


def test_a_recipe_of_rows_alone_has_nothing_to_build(built: Folder) -> None:
    head = RECIPE[: RECIPE.index("tuning:")].replace(
        "  train: {path: data/train.jsonl, format: round1}\n", ""
    )
    built.path("recipes/rows.yaml").write_text(head)
    said = "nothing to build: the recipe has neither tuning nor sampling"
    assert forecast(["rows"], built.store)[0].startswith(f"rows  {said}\n")
    assert explain("rows", built.store) == (said, 0)
