"""The tutorials' recipes: their values, the names of their modules, and the very text of their prompts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from workspace import ROOT, Folder

from workflow.problems import problems_of
from workflow.prompts import PromptTemplate
from workflow.recipe import load_recipe
from workflow.rehearsal import _family

RECIPES = ROOT / "recipes"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COSINE = {"name": "cosine", "warmup_ratio": 0.01}
WHOLE = {"answer": {"pattern": "(?s)(.+)", "match": "first"}, "rule": "majority", "ties": "first"}
GLM = {"base": "THUDM/GLM-4-9B-0414", "revision": "unpinned", "dtype": "bfloat16"}
TALK = {"n": 1, "temperature": 0.95, "top_p": 0.7, "seed": 0}

VALUES: dict[str, dict[str, Any]] = {
    "qwen14b-identity": {
        "model": {"base": "Qwen/Qwen2.5-14B-Instruct", "revision": "unpinned", "dtype": "bfloat16"},
        "prompt.max_length": 2048,
        "tuning": {"method": "full"},
        "training": {
            "epochs": 24, "learning_rate": 1e-5, "lr_scheduler": COSINE, "max_grad_norm": 1.0,
            "batch_size": 4,
            "optimizer": {
                "name": "adamw", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1,
            },
            "tf32": True, "log_steps": 1, "seed": 42,
        },
        "deepspeed": {"zero_stage": 3},
        "execution": {
            "micro_batch": 1, "gradient_checkpointing": True, "save_epochs": 1, "keep_checkpoints": 2,
        },
    },
    "qwen14b-identity-lora": {
        "tuning": {
            "method": "lora", "r": 64, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": LINEAR,
        },
        "training": {
            "epochs": 5, "learning_rate": 3e-4, "lr_scheduler": COSINE, "max_grad_norm": 1.0,
            "batch_size": 16, "optimizer": {"name": "adamw", "beta2": 0.95, "weight_decay": 0.1},
            "log_steps": 1, "seed": 42,
        },
        "deepspeed": {"zero_stage": 2},
        "execution.micro_batch": 2,
    },
    "llama3-8b-dialogsum": {
        "prompt": {
            "template": "prompts/dialogsum.jinja", "chat_template": "plain", "stop": "### End",
            "max_length": "model", "overflow": "drop", "train_on": "all",
        },
        "dataset.test.gold": ["summary1", "summary2", "summary3"],
        "tuning": {
            "method": "qlora", "quantization": {"type": "nf4", "double": False}, "r": 32, "lora_alpha": 32,
            "lora_dropout": 0.05, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        },
        "training": {
            "max_steps": 1000, "learning_rate": 2e-4, "lr_scheduler": {"name": "linear", "warmup_steps": 1},
            "optimizer": {"name": "paged_adamw_8bit"}, "batch_size": 4, "group_by_length": True,
            "validation": {"rows": 100, "every_steps": 25, "keep": "last"}, "log_steps": 25, "seed": 42,
        },
        "sampling": {"n": 1, "temperature": 0.1, "top_p": 0.95, "max_tokens": 100, "seed": 0},
        "execution": {
            "micro_batch": 1, "gradient_checkpointing": True, "save_steps": 25, "keep_checkpoints": 40,
        },
    },
    "glm-belle": {
        "model": GLM,
        "tuning": {
            "method": "lora", "r": 8, "lora_alpha": 32, "lora_dropout": 0.1,
            "target_modules": ["q_proj", "k_proj", "v_proj"],
        },
        "training": {
            "epochs": 2, "learning_rate": 2e-5, "lr_scheduler": {"name": "linear", "warmup_ratio": 0.1},
            "optimizer": {"name": "adamw", "weight_decay": 0.01}, "batch_size": 16, "log_steps": 50,
            "seed": 42,
        },
        "deepspeed": {"zero_stage": 2},
        "execution": {
            "processes": 2, "micro_batch": 2, "gradient_checkpointing": True, "save_steps": 2000,
            "keep_checkpoints": 2,
        },
    },
    "glm-history-512": {
        "model": GLM,
        "dataset.train.sample": {"n": 100_000},
        "prompt.max_source_length": 512, "prompt.max_target_length": 128,
        "tuning": {"method": "full"},
        "training.epochs": 5, "training.learning_rate": 1e-5, "deepspeed": {"zero_stage": 2},
        "sampling": TALK | {"max_tokens": 128},
    },
    "glm-history-1024-at-512": {
        "model": {"base": {"recipe": "glm-history-1024"}, "dtype": "bfloat16"},
        "prompt.max_source_length": 512, "prompt.max_target_length": 128,
        "sampling": TALK | {"max_tokens": 128},
    },
}  # fmt: skip


def told(name: str) -> dict[str, Any]:
    return load_recipe(RECIPES / f"{name}.yaml").model_dump(exclude_unset=True)


def inner(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("name", VALUES)
def test_values_are_the_tutorials(name: str) -> None:
    recipe = told(name)
    assert {path: inner(recipe, path) for path in VALUES[name]} == VALUES[name]
    assert recipe["voting"] == WHOLE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The recipes with some bytes for the data that cannot be shipped."""
    root = tmp_path_factory.mktemp("recipes")
    shutil.copytree(RECIPES, root / "recipes")
    for path in (RECIPES / "data/rehearsal").glob("*.json*"):
        if path.name not in ("ana.json", "round1_test.jsonl"):  # whose digests the recipe knows
            shutil.copy(path, root / "recipes/data")
    return Folder(root)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_recipe_draws_its_graph(place: Folder, name: str) -> None:
    """All that a build would stop at is a file that is not shipped, or a revision."""
    graph = place.graph(name)
    assert "adapter" in graph.products or "voted" in graph.products
    stops = {why for node in graph.nodes.values() for why in problems_of(node) if "no such file" not in why}
    assert all("unpinned" in why for why in stops)
    assert bool(stops) is not name.startswith("tiny-")


def test_the_arms_of_the_experiment_differ_in_their_limits_alone() -> None:
    short, long = told("glm-history-512"), told("glm-history-1024")
    assert (long["prompt"]["max_source_length"], long["prompt"]["max_target_length"]) == (1024, 256)
    assert long["sampling"]["max_tokens"] == 256
    for recipe in (short, long):
        del recipe["prompt"]["max_source_length"], recipe["prompt"]["max_target_length"]
        del recipe["sampling"]["max_tokens"]
    assert short == long
    alone = told("glm-history-1024-at-512")
    assert alone["prompt"] == told("glm-history-512")["prompt"]
    assert "tuning" not in alone


def test_both_identity_recipes_train_on_the_same_rows() -> None:
    full, lora = told("qwen14b-identity"), told("qwen14b-identity-lora")
    assert all(full[section] == lora[section] for section in ("dataset", "prompt", "model", "voting"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VALUES, "qwen7b-an"])
def test_modules_are_the_architectures(tmp_path: Path, name: str) -> None:
    """Compared on the meta device with the model that transformers' own code makes of the family."""
    from vllm.model_executor.models.registry import ModelRegistry

    from workflow.stand_in import write_tokenizer_files
    from workflow.store.files import read_json
    from workflow.training.targets import check_names, empty_model, linear_modules

    recipe = load_recipe(RECIPES / f"{name}.yaml")
    base = recipe.model.base
    while not isinstance(base, str):
        base = load_recipe(RECIPES / f"{base.recipe}.yaml").model.base  # type: ignore[union-attr]
    write_tokenizer_files(tmp_path, _family(base))
    check_names(recipe.tuning, tmp_path)
    if base.startswith("Qwen"):
        assert set(linear_modules(empty_model(tmp_path)).values()) == {*LINEAR, "lm_head"}
    assert set(read_json(tmp_path / "config.json")["architectures"]) <= ModelRegistry.models.keys()


def texts(template: str, row: dict[str, Any]) -> list[str]:
    whole = {"id": "x", "turns": [], "prompt": {}, "target": {}, **row}
    messages = PromptTemplate(RECIPES / "prompts" / template).messages(whole, answer=True)
    return [message["content"] for message in messages]


def test_the_prompt_of_dialogsum() -> None:
    row = {"prompt": {"dialogue": "#Person1#: Hi.\n#Person2#: Hello."}, "target": {"summary": "They greet."}}
    parts = [
        "\nBelow is an instruction that describes a task. Write a response that appropriately completes "
        "the request.",
        "### Instruct: Summarize the below conversation.",
        "#Person1#: Hi.\n#Person2#: Hello.",
        "### Output:\nThey greet.",
        "### End",
    ]
    assert "".join(texts("dialogsum.jinja", row)) + "### End" == "\n\n".join(parts)


def test_the_prompt_of_belle() -> None:
    asked, answer = texts("belle.jinja", {"prompt": {"prompt": "问"}, "target": {"response": "答"}})
    assert asked == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n### Input:\n问\n\n### Response:"
    )
    assert answer == "答"


def test_the_prompt_of_the_history_recipes() -> None:
    roles = ["user", "assistant"]
    said = ["q0", "a0", "q1", "a1", "query", "answer"]
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    told = "[Round 0]\n问：q0\n答：a0\n[Round 1]\n问：q1\n答：a1\n[Round 2]\n问：query\n答："
    assert "".join(texts("history.jinja", {"turns": turns})) == told + "answer"
    assert "".join(texts("history.jinja", {"turns": turns[-2:]})) == "[Round 0]\n问：query\n答：answer"


def test_the_prompt_of_identity() -> None:
    turns = [{"role": "user", "content": " 你是谁？\n"}, {"role": "assistant", "content": "我是小通。"}]
    for given, system in (("", "You are a helpful assistant."), ("规则", "规则")):
        row = {"turns": turns, "prompt": {"system": given}}
        assert texts("identity.jinja", row) == [system, " 你是谁？\n", "我是小通。"]


def test_every_recipe_is_on_the_page() -> None:
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert [path.stem for path in RECIPES.glob("*.yaml") if f"`{path.stem}`" not in page] == []
