"""What docs/data.md shows is true: its recipes read real rows, its table has every format and role."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from samples import DATA, found_in_all
from workspace import Folder

from workflow.formats import Dropped, Row
from workflow.formats.conversations import ROLES
from workflow.prompts import PromptTemplate
from workflow.recipe import yaml12
from workflow.recipe.dataset import Dataset
from workflow.schemas import schema

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
BODIES = dict(re.findall(r"```yaml\n# recipes/(\S+)\.yaml\n(.*?)```", PAGE, re.DOTALL))
TEMPLATES = dict(re.findall(r"```jinja\n\{# recipes/prompts/(\S+)\.jinja #\}\n(.*?)```", PAGE, re.DOTALL))
RECIPES = {name: yaml12.value_of(body)["dataset"] for name, body in BODIES.items()}
SPLITS = ("train", "test")
WANTED = {"kdconv": 6, "self-instruct": 20, "bbh": 8, "kto": 4}


def rows(dataset: Any) -> list[Row]:
    Dataset.model_validate(dataset)
    source = dict(dataset.get("train") or dataset.get("test"))
    found = found_in_all(source.pop("path"), **source)
    return [row for row in found if not isinstance(row, Dropped)]


@pytest.mark.parametrize("name", WANTED)
def test_recipes_of_the_page_read_real_rows(name: str) -> None:
    assert len(rows(RECIPES[name])) == WANTED[name]


def test_a_template_of_the_page_renders(tmp_path: Path) -> None:
    (tmp_path / "p.jinja").write_text(TEMPLATES["self-instruct"], encoding="utf-8")
    row = rows(RECIPES["self-instruct"])[2]
    messages = PromptTemplate(tmp_path / "p.jinja").messages(row.json(), answer=True)
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0]["content"].strip().startswith(row.prompt["instruction"])
    assert messages[1]["content"] == row.target["output"]


def test_every_format_and_role_is_on_the_page() -> None:
    models = schema("recipe")["$defs"].values()
    formats = {model["properties"]["format"]["const"] for model in models if "format" in model["properties"]}
    assert formats == set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)) - {"format"} | {"mixture"}
    assert [role for role in ROLES if not re.search(rf"\b{role}\b", PAGE)] == []


@pytest.mark.slow
def test_whole_recipes_of_the_page_become_tokens(tmp_path: Path) -> None:
    """A format that nobody has written, from the page and real rows alone, up to what would be trained."""
    recipes = tmp_path / "recipes"
    (recipes / "prompts").mkdir(parents=True)
    place = Folder(tmp_path)
    for name, folder in (("kdconv", "kdconv"), ("self-instruct", "self_instruct")):
        shutil.copytree(DATA / folder, recipes / folder)
        (recipes / f"{name}.yaml").write_text(BODIES[name], encoding="utf-8")
        (recipes / f"prompts/{name}.jinja").write_text(TEMPLATES[name], encoding="utf-8")
        place.make(f"rehearsal/{name}", "shards_train", "shards_test")
        products = place.graph(f"rehearsal/{name}").products
        counts = {split: place.store.built("shards", products[f"shards_{split}"].address) for split in SPLITS}
        found = {split: receipt.manifest.counts for split, receipt in counts.items() if receipt}
        assert sum(one["rows"] for one in found.values()) == WANTED[name]
        assert found["train"]["trained_tokens"] > 100 and found["test"]["trained_tokens"] == 0
        assert "voted" in products
