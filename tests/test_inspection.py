"""`tunemake check` and `tunemake forget` on a small recipe whose products need no library."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workflow import forgetting, settle
from workflow.cli import main
from workflow.errors import BuildError
from workflow.graph import Draw
from workflow.inspection import describe
from workflow.node import Node
from workflow.products import MAKERS
from workflow.store.build import Resources, build
from workflow.store.store import Store

RECIPE = """\
dataset:
  test: {path: test.jsonl, format: columns, prompt: {q: q}, gold: g}
prompt: {template: p.jinja, max_length: 100}
model: {base: org/name, revision: unpinned, dtype: float32}
"""
PATH = Path("recipes/x.yaml")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEMAKE_STORE", raising=False)
    Path("recipes").mkdir()
    PATH.write_text(RECIPE)
    Path("recipes/test.jsonl").write_text('{"q": "1", "g": "A"}\n{"q": "2", "g": "B"}\n')
    Path("recipes/p.jinja").write_text("{% block user %}{{ q }}{% endblock %}")
    settle.draw.cache_clear()


def rows() -> Node:
    """Build the test rows."""
    store = Store.here()
    node = Draw(store).recipe("x").node("rows_test")
    settle.settle(store, node)
    build(store, "rows", node.address, MAKERS["rows"], Resources())
    return node


def test_products_are_listed_with_what_exists() -> None:
    node = rows()
    lines = describe(PATH)[0].splitlines()
    assert lines[0] == "recipes/x.yaml: valid"
    table = {line.lstrip("└─ ").split()[0]: line.lstrip("└─ ").split(maxsplit=2)[1:] for line in lines[3:7]}
    assert table["rows_test"][0] == node.address[:8]
    assert table["rows_test"][1].startswith("built ")
    assert table["shards_test"][1].startswith("not built")


def test_what_a_build_would_stop_at_is_told() -> None:
    stop = "model.revision of org/name is unpinned: run `tunemake lock recipes/x.yaml`"
    assert describe(PATH)[1] == [f"{stop}, or write the commit there"]
    digest = "ab" * 32
    PATH.write_text(RECIPE.replace("path: test.jsonl", f"path: gone.jsonl, sha256: {digest}"))
    assert f"recipes/gone.jsonl: no such file; put the file with SHA-256 {digest} there" in describe(PATH)[1]


def test_a_deepspeed_file_against_the_recipe_stops_before_anything_is_made() -> None:
    Path("recipes/ds.json").write_text('{"train_batch_size": 64, "zero_optimization": {"stage": 3}}')
    PATH.write_text(
        RECIPE.replace("test: {path", "train: {target: {a: g}, path").replace(", gold: g", "")
        + "tuning: {method: full}\n"
        "training: {epochs: 1, batch_size: 8, learning_rate: 1e-3, seed: 1}\n"
        "deepspeed: {zero_stage: 2, config: ds.json}\n"
    )
    assert describe(PATH)[1][-1] == (
        "deepspeed.config contradicts the recipe: train_batch_size is 64, training.batch_size says 8; "
        "zero_optimization.stage is 3, deepspeed.zero_stage says 2"
    )


def test_the_command_fails_where_a_build_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(PATH)]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("recipes/x.yaml: valid\n")
    assert printed.err.startswith("Error: before it can be built:\n  model.revision of org/name")
    PATH.write_text(RECIPE.replace("unpinned", "0123456789abcdef0123456789abcdef01234567"))
    assert main(["check", str(PATH)]) == 0


def test_a_complete_recipe_has_nothing_before_it() -> None:
    PATH.write_text(RECIPE.replace("unpinned", "0123456789abcdef0123456789abcdef01234567"))
    assert describe(PATH)[1] == []


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% block user %}{{ q }", "p.jinja:1"),
        ("hello", "neither user nor assistant"),
        ("{% include 'x' %}", "not allowed"),
    ],
)
def test_a_broken_template_is_an_error(template: str, said: str) -> None:
    Path("recipes/p.jinja").write_text(template)
    with pytest.raises(BuildError, match=said):
        describe(PATH)


@pytest.mark.parametrize("name", ["recipes/y.yaml", "recipes/x", "recipes/x.yml", "recipes/a b.yaml"])
def test_what_is_no_recipe_is_an_error(name: str) -> None:
    with pytest.raises(BuildError):
        describe(Path(name))


def test_check_leaves_no_plan_behind() -> None:
    describe(PATH)
    assert not list(Path("store").glob("*/*.json"))


def test_forget_makes_the_next_build_make_it_again() -> None:
    node, store = rows(), Store.here()
    receipt = store.built("rows", node.address)
    assert receipt is not None
    said = forgetting.forget("x", "rows_test").splitlines()
    assert said[0] == f"removed {store.file('rows', node.address, '.json')}"  # the receipt goes first
    assert store.built("rows", node.address) is None
    assert not store.stamp("rows", node.address).exists()
    assert not store.folder("rows", receipt.key).exists()
    assert rows().address == node.address
    assert store.built("rows", node.address) == receipt


def test_forget_drops_half_made_work() -> None:
    node, store = rows(), Store.here()
    receipt = store.built("rows", node.address)
    assert receipt is not None
    forgetting.forget("x", "rows_test")
    (store.work(receipt.key) / "checkpoint").mkdir(parents=True)
    assert forgetting.forget("x", "rows_test") == f"removed {store.work(receipt.key)}"


def test_forget_of_nothing_says_so() -> None:
    assert "nothing to forget" in forgetting.forget("x", "rows_test")
    assert "nothing to forget" in forgetting.forget("x", "shards_test")  # its inputs are not there either


@pytest.mark.parametrize(
    ("recipe", "product"), [("x", "adaptor"), ("y", "adapter"), ("x", "adapter"), ("../x", "a")]
)
def test_forget_refuses_what_is_not_there(recipe: str, product: str) -> None:
    with pytest.raises(BuildError):
        forgetting.forget(recipe, product)


def test_folders_of_read_only_files_can_be_forgotten() -> None:
    node = rows()
    receipt = Store.here().built("rows", node.address)
    assert receipt is not None
    files = list(Store.here().folder("rows", receipt.key).iterdir())
    assert not any(os.stat(file).st_mode & 0o222 for file in files)
    forgetting.forget("x", "rows_test")
    assert not any(file.exists() for file in files)


def test_forget_drops_the_pieces_that_the_product_used() -> None:
    node, store = rows(), Store.here()
    receipt = store.built("rows", node.address)
    assert receipt is not None
    for name in (f"used/{receipt.key}.jsonl", "used/other.jsonl", "unused/other.jsonl"):
        path = store.pieces / "rows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert f"removed {store.pieces / 'rows' / 'used'}" in forgetting.forget("x", "rows_test").splitlines()
    assert [path.name for path in (store.pieces / "rows").iterdir()] == ["unused"]
