"""Every shipped recipe: a server makes of a conversation the token ids that prediction has for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_rehearsal import SHIPPED
from workspace import ROOT, Folder

from workflow.products import MAKERS
from workflow.prompts import PromptTemplate
from workflow.recipe.leaf import slice_of
from workflow.rehearsal import REHEARSAL
from workflow.serving.template import NO_LIMITS, Dialogue
from workflow.settle import settle
from workflow.store.build import Resources, build
from workflow.tokenizing import Tokenizing

MODES = {"glm-belle": "field", "llama3-8b-dialogsum": "field"}
MODES |= dict.fromkeys(("qwen7b-an", "tiny-base", "tiny-logic"), "verbatim")
"""What a client's messages become, where they are not the turns of a conversation."""
ROWS = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("parity")
    shutil.copytree(ROOT / "recipes", root / "recipes")
    return Folder(root)


def made(place: Folder, recipe: str, name: str) -> Path:
    """The folder of a product, made in this process by the very function that its job calls."""
    for node in place.graph(recipe).node(name).closure():
        settle(place.store, node)
        receipt = build(place.store, node.product, node.address, MAKERS[node.product], Resources(2))
    return place.store.folder(receipt.product, receipt.key)


def said(dialogue: Dialogue, row: dict[str, Any]) -> list[dict[str, str]]:
    """What a client says to get the answer to a row."""
    if dialogue.mode == "verbatim":
        return PromptTemplate(dialogue.path).messages(row, answer=False)
    if dialogue.mode == "field":
        return [{"role": "user", "content": row["prompt"][dialogue.field]}]
    system = row["prompt"]["system"]
    before = [{"role": "system", "content": system}] if system else []
    return before + [{"role": turn["role"], "content": turn["content"]} for turn in row["turns"][:-1]]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_server_asks_as_prediction_does(place: Folder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    monkeypatch.chdir(place.root)
    recipe = name if name.startswith("tiny-") else REHEARSAL + name
    graph = place.graph(recipe)
    rows = made(place, recipe, "rows_test" if "rows_test" in graph.products else "rows_train")
    tokenizer = made(place, recipe, "tokenizer")
    chosen = slice_of(graph.recipe.prompt, "shards")
    dialogue = Dialogue(ROOT / "recipes" / graph.recipe.prompt.template, tokenizer, chosen)
    assert dialogue.mode == MODES.get(name, "turns")
    names = {role: token for role, token in dialogue.chat.names.items() if isinstance(token, str)}
    server: Any = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), **names)
    asked = chosen | NO_LIMITS | {"split": "test"}
    prediction = Tokenizing(asked, PromptTemplate(dialogue.path), tokenizer, fast=False)
    lines = (rows / "rows.jsonl").read_bytes().splitlines()[:ROWS]
    template, ours = dialogue.template(), prediction.rows(prediction.asked(lines))
    assert lines
    for line, row in zip(lines, ours, strict=True):
        messages = said(dialogue, json.loads(line))
        found = server.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, return_dict=False
        )
        assert found == row.input_ids[: row.prompt_tokens].tolist() == dialogue.ids(messages)
