"""What a leaf is declared not to decide has the same bytes with both values, built apart from each other.

Here are the leaves that a job sees although they are in no address: section `execution`, and paths. No job
sees the others (`test_field_map.py`). Left out are `processes` and `micro_batch`: sums of another shape round
differently, so byte identity is claimed for equal ones, and a receipt's run record says which they were.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import workspace
from tests.workspace import Folder
from workflow.store.build import verify
from workflow.store.files import remove_tree

pytestmark = pytest.mark.slow

RECIPE = workspace.RECIPE.replace("deepspeed: {zero_stage: 2}\n", "").replace("r: 8", "r: 2")
CASES = [
    ("adapter", "processes: 1", "processes: 1, gradient_checkpointing: true"),
    ("adapter", "save_steps: 2", "save_steps: 1"),
    ("adapter", "save_steps: 2", "save_steps: 1, keep_checkpoints: 1"),
    ("greedy", "processes: 1", "processes: 1, gpu_memory_utilization: 0.5"),
    ("greedy", "processes: 1", "processes: 1, max_model_len: 400"),
    ("greedy", "processes: 1", "processes: 1, prefix_caching: false"),
    ("rows_train", "data/train.jsonl", "data/copy.jsonl"),
    ("shards_train", "prompts/tiny.jinja", "prompts/copy.jinja"),
    ("tokenizer", "models/tiny-qwen2", "models/copy"),
    ("model", "models/tiny-qwen2", "models/copy"),
]
"""Product in the graph, and the edit of the recipe (the base's for a model) that it must not feel."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """All products whose bytes are compared, with a copy of each path's bytes elsewhere."""
    place = workspace.folder(tmp_path_factory.mktemp("bytes") / "w", base=2, train=4, test=2)
    recipes = place.path("recipes")
    shutil.copy(recipes / "data/train.jsonl", recipes / "data/copy.jsonl")
    shutil.copy(recipes / "prompts/tiny.jinja", recipes / "prompts/copy.jinja")
    shutil.copytree(recipes / "models/tiny-qwen2", recipes / "models/copy")
    (recipes / "small.yaml").write_text(RECIPE)
    place.make("small", "greedy", "rows_train", "shards_train")
    return place


@pytest.mark.parametrize(("name", "old", "new"), CASES, ids=[case[2].split(", ")[-1] for case in CASES])
def test_both_values_give_the_same_bytes(
    built: Folder, tmp_path: Path, name: str, old: str, new: str
) -> None:
    recipe = "small-base" if name in ("tokenizer", "model") else "small"
    node = built.graph(recipe).node(name)
    first = built.store.built(node.product, node.address)
    assert first
    other = built.copy(tmp_path / "w")
    other.edit(f"{recipe}.yaml", old, new)
    assert other.graph(recipe).node(name).address == node.address
    other.store.file(node.product, node.address, ".json").unlink()
    remove_tree(other.store.folder(node.product, first.key))
    remove_tree(other.store.pieces)
    other.make(recipe, name)
    second = other.store.built(node.product, node.address)
    assert second == first
    verify(other.store.folder(node.product, second.key))
