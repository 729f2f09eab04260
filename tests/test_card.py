"""Model cards: metadata as the Hub reads it, facts as the plans have them, nothing that varies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from workspace import folder, pretend

from workflow.card import write_adapter_card, write_merged_card
from workflow.store.build import Job
from workflow.store.lineage import Step, lineage
from workflow.store.records import Manifest, Plan
from workflow.tokens import Rendering, write_rendering

COMMIT, DIGEST = "a1" * 20, "d" * 64
WRAPPED = f"{'x' * 120} {'`' * 110} y"  # YAML breaks it before and after the backticks
HOSTILE = "x\n```\n---\n## Evil\n````<script>"
SLICE: dict[str, Any] = {
    "tuning": {"method": "lora", "r": 8, "target_modules": [HOSTILE]},
    "training": {"epochs": 1, "learning_rate": 1e-4, "seed": 42},
    "model": {"dtype": "bfloat16"},
    "deepspeed": None,
}


def step(product: str, slice: dict[str, Any], sources: dict[str, str] | None = None) -> Step:
    plan = Plan(product=product, version=1, slice=slice, inputs={}, sources=sources or {})
    return Step(plan.address, "k" * 32, plan)


def job(root: Path, slice: dict[str, Any], base: Step) -> Job:
    for name in ("shards", "out"):
        (root / name).mkdir(parents=True, exist_ok=True)
    write_rendering(root / "shards", Rendering([7, 9], ["<end>", WRAPPED], 0))
    rows = step("rows", {"format": "alpaca"}, {"data": DIGEST})
    shards = step("shards", {"max_length": 512, "chat_template": "model"}, {"template": "e" * 64})
    behind = {"model": (base,), "shards": (rows, shards)}
    inputs = {"shards": root / "shards", "model": root / "model"}
    return Job(slice, inputs, {}, root / "out", root, root, lineage=behind)


def blocks(text: str) -> list[Any]:
    """The YAML in the fences of a card, which end as CommonMark says."""
    found, fence, held = [], "", []
    for line in text.split("\n"):
        if fence and re.fullmatch(f" {{0,3}}{fence}`* *", line):
            found.append(yaml.safe_load("\n".join(held)))
            fence, held = "", []
        elif fence:
            held.append(line)
        elif line.startswith("```"):
            fence = line.removesuffix("yaml")
    assert not fence
    return found


HUB = step("model", {"hub": "Org/Base-7B", "revision": COMMIT})


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    write_adapter_card(job(tmp_path, SLICE, HUB))
    return (tmp_path / "out" / "README.md").read_text()


def test_the_hub_reads_the_metadata(adapter: str) -> None:
    card = ModelCard(adapter)
    assert card.data.to_dict() == {
        "library_name": "peft", "base_model": "Org/Base-7B", "base_model_relation": "adapter",
        "pipeline_tag": "text-generation", "tags": ["tunemake", "lora"],
    }  # fmt: skip
    assert "# license: yours" in adapter and card.text.startswith("\n# Model card")


def test_facts_are_those_of_the_plans(adapter: str) -> None:
    training, prompt, data = blocks(adapter)
    assert training == {name: value for name, value in SLICE.items() if value}
    assert prompt == {
        "chat_template": "model", "max_length": 512, "stop": ["<end>", WRAPPED], "stop_token_ids": [7, 9],
        "template_sha256": "e" * 64,
    }  # fmt: skip
    assert data == {"data": [{"format": "alpaca", "sha256": {"data": DIGEST}}]}
    assert f"[Org/Base-7B](https://huggingface.co/Org/Base-7B/tree/{COMMIT})" in adapter


def test_a_merged_model_tells_what_its_adapter_does(adapter: str, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    trained = step("adapter", SLICE)
    asked = {"method": "qlora", "merge_into": "dequantized"}
    of = Job(
        asked, {"adapter": tmp_path / "out"}, {}, tmp_path / "merged",
        tmp_path, tmp_path, lineage={"model": (HUB,), "adapter": (trained,)},
    )  # fmt: skip
    write_merged_card(of)
    text = (tmp_path / "merged" / "README.md").read_text()
    found = ModelCard(text).data.to_dict()
    assert (found["library_name"], found["base_model_relation"]) == ("transformers", "finetune")
    assert blocks(text) == blocks(adapter) and "merged into the dequantized weights" in text
    assert text.count("## What it is worth") == 1


def test_a_base_that_no_hub_has_is_known_by_its_files(tmp_path: Path) -> None:
    full = {**SLICE, "tuning": {"method": "full"}}
    write_adapter_card(job(tmp_path, full, step("model", {"scratch": True}, {"config.json": DIGEST})))
    text = (tmp_path / "out" / "README.md").read_text()
    found = ModelCard(text).data.to_dict()
    assert "base_model" not in found and found["library_name"] == "transformers"
    assert found["tags"] == ["tunemake", "full-fine-tuning"]
    assert blocks(text)[0] == {"config.json": DIGEST}


def test_lineage_goes_down_to_the_sources(tmp_path: Path) -> None:
    place = folder(tmp_path)
    pretend(place, "small")
    node = place.graph("small").node("merged")
    found = lineage(place.store, node.plan)
    assert [s.plan.product for s in found["model"]] == [
        "model", "rows", "tokenizer", "shards", "adapter", "merged"
    ]  # fmt: skip
    assert found["adapter"][-1].address == node.inputs["adapter"].address
    assert all(place.store.has(s.plan.product, s.key) for steps in found.values() for s in steps)
    place.store.file("adapter", node.inputs["adapter"].address, ".plan.json").unlink()
    assert found | {"adapter": ()} == lineage(place.store, node.plan)


def test_a_card_is_no_content() -> None:
    one, other = ({"bytes": 1, "sha256": digit * 64} for digit in "12")
    files = [{"w": one}, {"w": one, "README.md": one}, {"w": one, "README.md": other}, {"w": other}]
    contents = [Manifest.model_validate({"files": f, "counts": {}}).content for f in files]
    assert contents[0] == contents[1] == contents[2] != contents[3]
