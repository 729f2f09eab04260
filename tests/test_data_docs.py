"""What docs/data.md shows is true: its recipes read real rows, its table has every format and role."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from samples import found_in_all

from workflow.formats import Dropped, Row
from workflow.formats.conversations import ROLES
from workflow.prompts import PromptTemplate
from workflow.recipe import yaml12
from workflow.recipe.dataset import Dataset
from workflow.schemas import schema

PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
RECIPES = {
    name: yaml12.value_of(body)["dataset"]
    for name, body in re.findall(r"```yaml\n# recipes/(\S+)\.yaml\n(.*?)```", PAGE, re.DOTALL)
}
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
    body = re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / "p.jinja").write_text(body, encoding="utf-8")
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
