"""`tunemake new`: what it writes is a valid recipe, and it never overwrites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workflow import starting
from workflow.errors import BuildError
from workflow.prompts import PromptTemplate
from workflow.recipe import load_recipe
from workflow.recipe.recipe import Recipe
from workflow.schemas import schema
from workflow.shared_files import profile, snakefile
from workflow.starting import new_recipe


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_of_ones_own_gets_all_it_needs(tmp_path: Path) -> None:
    written = new_recipe("mine", tmp_path)
    names = {"recipes/mine.yaml", "recipes/prompts/mine.jinja", "Snakefile"}
    names |= {"profiles/default/config.yaml", "schemas/recipe.schema.json"}
    assert set(files(tmp_path)) == names == {str(p.relative_to(tmp_path)) for p in written}
    assert (tmp_path / "Snakefile").read_text() == starting.SNAKEFILE
    assert (tmp_path / "profiles/default/config.yaml").read_bytes() == profile().read_bytes()
    assert json.loads((tmp_path / "schemas/recipe.schema.json").read_text()) == schema("recipe")


def test_beside_a_snakefile_only_the_recipe_is_written(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text("# mine")
    new_recipe("mine", tmp_path)
    assert set(files(tmp_path)) == {"Snakefile", "recipes/mine.yaml", "recipes/prompts/mine.jinja"}
    assert (tmp_path / "Snakefile").read_text() == "# mine"


def test_the_recipe_and_its_template_are_valid(tmp_path: Path) -> None:
    path, template, *_ = new_recipe("mine", tmp_path)
    recipe = load_recipe(path)
    assert recipe.model.revision == "unpinned"
    row = {"id": "1", "turns": [], "prompt": {"question": "2+2?"}, "target": {"answer": "Answer: 4"}}
    roles = [message["role"] for message in PromptTemplate(template).messages(row, answer=True)]
    assert roles == ["system", "user", "assistant"]


def test_every_section_is_shown(tmp_path: Path) -> None:
    text = new_recipe("mine", tmp_path)[0].read_text()
    assert text.startswith("# yaml-language-server: $schema=../schemas/recipe.schema.json\n")
    assert [name for name in Recipe.model_fields if f"{name}:" not in text] == []


def test_commented_out_sections_are_valid_too(tmp_path: Path) -> None:
    path = new_recipe("mine", tmp_path)[0]
    head, tail = path.read_text().split("# execution:")
    tail = "".join(line.removeprefix("# ").removeprefix("#") for line in tail.splitlines(keepends=True))
    path.write_text(head.replace("# deepspeed:", "deepspeed:") + "execution:" + tail)
    recipe = load_recipe(path)
    assert recipe.deepspeed is not None
    assert recipe.execution.gradient_checkpointing


@pytest.mark.parametrize("there", ["recipes/mine.yaml", "recipes/prompts/mine.jinja"])
def test_nothing_is_overwritten(there: str, tmp_path: Path) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("precious")
    with pytest.raises(BuildError, match="exists"):
        new_recipe("mine", tmp_path)
    assert files(tmp_path) == {there: b"precious"}


@pytest.mark.parametrize("name", ["../x", "a b", "$(touch X)", "", "experiments", "{0}"])
def test_bad_names_write_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not a recipe name"):
        new_recipe(name, tmp_path)
    assert files(tmp_path) == {}


def test_the_snakefile_is_found() -> None:
    assert snakefile().is_file()
    assert (snakefile().parent / "rules").is_dir()
