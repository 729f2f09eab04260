"""Rehearsals: any recipe made small, with rows and a model at hand, and the real recipe left alone."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from workspace import ROOT, Folder

from workflow.earlier import in_results
from workflow.errors import BuildError
from workflow.recipe import Recipe, load_recipe
from workflow.recipe.engines import Vllm
from workflow.rehearsal import FAMILIES, REHEARSAL, _family, rehearsed
from workflow.settle import last_files

SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
TUNED = """\
dataset:
  train: {path: data/mine.jsonl, format: text, sample: {n: 9, seed: 4}}
  split: {test: 0.01}
prompt: {template: p.jinja, max_length: 100}
gate: {max_cut: 0.1}
model: {base: org/qwen2-7b, revision: unpinned, dtype: float16}
tuning: {method: lora, r: 8, lora_alpha: 16, target_modules: [q_proj], layers_to_transform: [3, 4]}
training:
  epochs: 3
  batch_size: 32
  learning_rate: 1e-4
  lr_scheduler: {name: cosine, warmup_steps: 100}
  validation: {rows: 500, every_epochs: 1, keep: best}
  seed: 1
deepspeed: {zero_stage: 3, offload_optimizer: nvme, config: ds.json}
sampling: {n: 9, temperature: 0.5, max_tokens: 500, seed: 0}
execution: {nvme_path: /fast, micro_batch: 4, gradient_checkpointing: true}
"""


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    """A folder with the shipped recipes, their templates and stand-in rows, and no other data."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("tiny-base"))
    return Folder(tmp_path)


def small(folder: Path, text: str = TUNED) -> Recipe:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return rehearsed(load_recipe(path), path)


def with_rows(folder: Path, name: str = "data/rehearsal/mine.jsonl") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text('{"text": "a"}\n')
    return folder


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "tiny-base"])
def test_every_recipe_is_rehearsed_offline(place: Folder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("drawing must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    shutil.copytree(ROOT / "recipes/data/tiny-base", place.path("recipes/data/tiny-base"))
    graph = place.graph(REHEARSAL + name)
    assert last_files(graph)[0] == "voted.jsonl"
    slices = [node.slice for node in graph.nodes.values() if node.product in ("model", "tokenizer")]
    assert not any("hub" in chosen for chosen in slices)
    trained = [node for node in graph.nodes.values() if node.product == "adapter"]
    assert all(node.slice["training"]["max_steps"] == 4 for node in trained)


def test_the_real_recipe_shares_no_training_with_its_rehearsal(tmp_path: Path) -> None:
    draw = Folder(ROOT).draw()
    real = draw.recipe("tiny-logic").nodes.keys()
    small = draw.recipe("rehearsal/tiny-logic").nodes
    assert {small[address].product for address in small.keys() & real} <= {"rows", "tokenizer"}
    assert draw.recipe("tiny-logic").nodes.keys() == real == Folder(ROOT).graph("tiny-logic").nodes.keys()


def test_what_is_made_small(tmp_path: Path) -> None:
    told = small(with_rows(tmp_path)).model_dump(mode="json", exclude_unset=True)
    assert "gate" not in told
    assert told["dataset"] == {
        "train": {
            "path": "data/rehearsal/mine.jsonl", "format": "text", "sample": {"n": 9, "seed": 4},
        },
        "split": {"test": 0.25},
    }  # fmt: skip
    assert told["prompt"] == {"template": "p.jinja", "max_length": 600}
    assert told["model"] == {"base": {"stand_in": {"family": "qwen2"}}, "dtype": "bfloat16"}
    assert told["tuning"]["layers_to_transform"] == [0]
    assert told["training"] == {
        "max_steps": 4, "batch_size": 8, "learning_rate": 1e-4, "log_steps": 1, "seed": 1,
        "lr_scheduler": {"name": "cosine", "warmup_steps": 1},
        "validation": {"rows": 8, "every_steps": 2, "keep": "best"},
    }  # fmt: skip
    assert told["deepspeed"] == {"zero_stage": 3, "offload_optimizer": "cpu"}
    assert (told["sampling"]["n"], told["sampling"]["max_tokens"]) == (3, 8)
    assert told["execution"] == {
        "processes": 2, "micro_batch": 1, "save_steps": 2, "gradient_checkpointing": True,
    }  # fmt: skip


def test_no_endpoint_is_asked_and_nothing_quantised(tmp_path: Path) -> None:
    asked = re.sub("(tuning|deepspeed|gate): .*\n|training:\n(  .*\n)*|  train: .*\n", "", TUNED)
    asked = asked.replace("split: {test: 0.01}", "test: {path: data/mine.jsonl, format: text}")
    engine = "engine: {name: endpoint, base_url: 'https://h/v1', model: m, api: chat}"
    with_rows(tmp_path)
    recipe = small(tmp_path, asked.replace("n: 9", f"n: 9, {engine}"))
    assert recipe.sampling and recipe.sampling.engine == Vllm(name="vllm")
    engine = "engine: {name: vllm, weights: adapter, quantization: fp8}"
    recipe = small(tmp_path, TUNED.replace("n: 9, temp", f"n: 9, {engine}, temp"))
    assert recipe.sampling and recipe.sampling.engine == Vllm(name="vllm", weights="adapter")


def test_own_rows_come_first(tmp_path: Path) -> None:
    with_rows(tmp_path)
    assert small(tmp_path).dataset.train.path == "data/rehearsal/mine.jsonl"  # type: ignore[union-attr]
    with_rows(tmp_path, "data/mine.jsonl")
    assert small(tmp_path).dataset.train.path == "data/mine.jsonl"  # type: ignore[union-attr]


def test_rows_of_the_hub(tmp_path: Path) -> None:
    hub = TUNED.replace("data/mine.jsonl", "{hub: org/d, revision: unpinned, split: test, config: c}")
    with pytest.raises(BuildError, match=r"train: neither \S+org/d is there nor \S+data/rehearsal/org/d"):
        small(tmp_path, hub)
    with_rows(tmp_path, "data/rehearsal/org/d/test.jsonl")
    told = small(tmp_path, hub).model_dump(exclude_unset=True)["dataset"]["train"]["path"]
    assert told == {"hub": "data/rehearsal/org/d", "split": "test", "config": "c"}


def test_no_rows_at_all(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"neither \S+mine\.jsonl is there nor \S+rehearsal/mine\.jsonl"):
        small(tmp_path)


def test_every_source_of_a_mixture(tmp_path: Path) -> None:
    one = "{path: data/mine.jsonl, format: text}"
    several = f"{{format: mixture, sources: {{a: {one}, b: {one}}}}}"
    text = TUNED.replace("{path: data/mine.jsonl, format: text, sample: {n: 9, seed: 4}}", several)
    told = small(with_rows(tmp_path), text).model_dump(exclude_unset=True)["dataset"]["train"]["sources"]
    wanted = {"path": "data/rehearsal/mine.jsonl", "format": "text", "sample": {"n": 64}}
    assert told == {"a": wanted, "b": wanted}


def test_models_of_other_recipes_are_rehearsed_too(tmp_path: Path) -> None:
    text = TUNED.replace("base: org/qwen2-7b, revision: unpinned", "base: {recipe: other}")
    found = small(with_rows(tmp_path), text)
    assert found.model.base.recipe == "rehearsal/other"  # type: ignore[union-attr]
    assert found.prompt.max_length == 600  # its tokens may be bytes
    start = "layers_to_transform: [3, 4], initialise: {of: {a: 0.5, b: 0.5}, combination: linear}"
    told = small(tmp_path, TUNED.replace("layers_to_transform: [3, 4]", start)).model_dump()["tuning"]
    assert told["initialise"]["of"] == {"rehearsal/a": 0.5, "rehearsal/b": 0.5}
    start = "layers_to_transform: [3, 4], initialise: {recipe: a}"
    told = small(tmp_path, TUNED.replace("layers_to_transform: [3, 4]", start)).model_dump()["tuning"]
    assert told["initialise"]["recipe"] == "rehearsal/a"


def test_a_fetched_models_own_files_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub/models--org--qwen2-7b/snapshots" / ("a" * 40)
    shutil.copytree(ROOT / "recipes/models/tiny-qwen2", snapshot)
    refs = tmp_path / "hub/models--org--qwen2-7b/refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    recipe = small(with_rows(tmp_path))
    assert recipe.model.base.stand_in.like == str(snapshot)  # type: ignore[union-attr]
    assert recipe.prompt.max_length == 100  # in the model's own tokens
    assert recipe.gate is None  # the rows are not its own
    assert small(with_rows(tmp_path, "data/mine.jsonl")).gate is not None
    (snapshot / "tokenizer.json").unlink()
    assert small(tmp_path).model.base.stand_in.family == "qwen2"  # type: ignore[union-attr]


NAMES = {
    "Qwen/Qwen2-7B-Instruct": "qwen2", "Qwen/Qwen1.5-14B-Chat": "qwen2", "Qwen/Qwen2.5-14B-Instruct": "qwen2",
    "Qwen/Qwen3-8B": "qwen3", "meta-llama/Meta-Llama-3-8B": "llama", "meta-llama/Llama-3.1-8B": "llama",
    "mistralai/Mistral-7B-v0.3": "mistral", "THUDM/GLM-4-9B-0414": "glm4", "THUDM/glm-4-9b-chat-hf": "glm",
    "THUDM/GLM-Z1-9B-0414": "glm4",
}  # fmt: skip


def test_families() -> None:
    assert {name: _family(name) for name in NAMES} == NAMES
    assert set(NAMES.values()) == set(FAMILIES.values())
    for name in ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen2-VL-7B", "Qwen/Qwen-14B-Chat", "org/other"):
        with pytest.raises(BuildError, match=f"{name} tells no family .*`hf download {name}"):
            _family(name)


def test_a_rehearsal_that_cannot_be(tmp_path: Path) -> None:
    text = TUNED.replace("zero_stage: 3, offload_optimizer: nvme, config: ds.json", "zero_stage: 2")
    text = text.replace("warmup_steps: 100", "warmup_ratio: 0.1").replace("32", "1")
    assert small(with_rows(tmp_path), text).training.batch_size == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("results/x", ("x", "")),
        ("results/x/voted.jsonl", ("x", "voted.jsonl")),
        ("results/rehearsal/x", ("rehearsal/x", "")),
        ("results/rehearsal/x/voted.jsonl", ("rehearsal/x", "voted.jsonl")),
        ("results", None),
        ("results/rehearsal", None),
        ("recipes/x", None),
    ],
)
def test_paths_in_results(path: str, found: tuple[str, str] | None) -> None:
    assert in_results(Path(path)) == found


def test_commands_know_rehearsals(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflow.picture import show
    from workflow.why import explain

    monkeypatch.chdir(place.root)
    name = "rehearsal/glm-history-1024-at-512"
    for target in (name, f"results/{name}/voted.jsonl"):
        text, stops = explain(target, place.store)
        assert "rehearsal/glm-history-1024/adapter " in text and text.startswith("rehearsal/")
        assert stops == 0
    assert "rehearsal/glm-history-1024/merged" in show(name, Path("recipes"), place.store)
    rows = json.dumps({"prompt": "问", "response": "答", "history": []}) + "\n"
    place.path("recipes/data/chat_dev.json").write_text(rows)
    assert "chat_dev" in str(place.graph(name).products["source_test"].sources)
