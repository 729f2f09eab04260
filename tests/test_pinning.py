"""Digests of data files written into a recipe: everything else of it stays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from workflow.cli import main
from workflow.errors import BuildError
from workflow.pinning import _with_digest, pin_data
from workflow.recipe import load_recipe

DIGEST = hashlib.sha256(b"rows").hexdigest()
HEAD = "# path: of a comment\n"
TAIL = """\
prompt: {template: p.jinja, max_length: 100}   # path: x
model: {base: ./model, dtype: float32}
"""
LAYOUTS = [
    "dataset:\n  test: {path: t.jsonl, format: round1}   # path\n",
    "dataset:\n  test:\n    format: round1  # the format\n    path: t.jsonl    # the file\n",
    "dataset: {test: {format: round1, path: t.jsonl}}\n",
    "dataset: {test: {\n    path: t.jsonl,\n    format: round1}}\n",
    "dataset:\n  test: {format: round1,\n    'path': t.jsonl}\n",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "t.jsonl").write_bytes(b"rows")
    return tmp_path / "x.yaml"


@pytest.mark.parametrize("form", ["", "\ufeff", "\r\n"], ids=["plain", "bom", "crlf"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_kept(recipe: Path, layout: str, form: str) -> None:
    text = HEAD + layout + TAIL
    text = text.replace("\n", form) if form == "\r\n" else form + text
    recipe.write_bytes(text.encode())
    assert pin_data(recipe) == [f"{recipe}: dataset.test now has sha256 {DIGEST}"]
    source = load_recipe(recipe).dataset.test
    assert source and source.sha256 == DIGEST
    lines = recipe.read_bytes().decode().splitlines(keepends=True)
    written = "".join(line for line in lines if line.strip() != f"sha256: {DIGEST}")
    assert written.replace(f"sha256: {DIGEST}, ", "") == text
    assert pin_data(recipe) == [f"{recipe}: dataset.test has its sha256 already"]


def test_digits_are_quoted(recipe: Path) -> None:
    text = _with_digest(recipe, LAYOUTS[0] + TAIL, ("dataset", "test"), "1" * 38 + "e" + "1" * 25)
    assert "sha256: '1111" in text


def test_a_missing_file_is_one_line(recipe: Path) -> None:
    recipe.write_text(LAYOUTS[0].replace("t.jsonl", "gone.jsonl") + TAIL)
    with pytest.raises(BuildError, match=r"gone\.jsonl: no such file"):
        pin_data(recipe)


def test_the_command_needs_no_hub(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(LAYOUTS[0] + TAIL)
    assert main(["lock", str(recipe), "--data"]) == 0
    assert capsys.readouterr().out == f"{recipe}: dataset.test now has sha256 {DIGEST}\n"
    assert main(["lock", str(recipe)]) == 2  # a model folder has no commit
