"""Every place in every slice has a name in the recipe, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_origin

import pytest
from workspace import RECIPE, Folder, folder

from workflow.fields import field_of, flat, source_of
from workflow.graph import Graph
from workflow.recipe import Recipe
from workflow.recipe.leaf import EXECUTION, SOURCE, owners

COLUMNS = """\
dataset:
  train: {path: data/c.csv, format: columns, prompt: {q: Q}, target: {a: A}, id: I, gold: G, bad_rows: 2}
  split: {test: 0.5, seed: 7}
prompt: {template: prompts/tiny.jinja, max_source_length: 90, max_target_length: 9, overflow: drop}
model: {base: org/name, revision: 0123456789abcdef0123456789abcdef01234567, dtype: float32}
tuning: {method: full}
training:
  max_steps: 9
  learning_rate: 1e-3
  lr_scheduler: {name: cosine_with_restarts, num_cycles: 2}
  optimizer: adafactor
  packing: {length: 99}
  batch_size: 8
  seed: 1
  validation: {rows: 2, every_steps: 5, keep: best, early_stopping: {patience: 2}}
sampling: {n: 1, temperature: 0, top_k: 5, max_tokens: 9, seed: 0}
serving: {questions: [{ask: hi, expect: a}], system: be brief, max_tokens: 5, canary: false}
"""
PARSED = """\
dataset:
  train: {path: data/c.csv, format: alpaca, parse: {field: input, pattern: '(?P<q>.*)'}}
  test: {path: data/c.csv, format: alpaca, parse: {field: output, pattern: '(?P<a>.*)'}}
prompt: {template: prompts/tiny.jinja, max_length: 90}
model: {base: org/name, revision: 0123456789abcdef0123456789abcdef01234567, dtype: float32}
tuning: {method: full}
training:
  epochs: 1
  learning_rate: 1e-3
  lr_scheduler: SCHEDULE
  batch_size: 8
  seed: 1
"""
ASKED = """\
dataset: {test: {path: data/c.csv, format: alpaca}}
prompt: {template: prompts/tiny.jinja, max_length: 90}
model: {base: org/name, revision: 0123456789abcdef0123456789abcdef01234567, dtype: float32}
sampling:
  {n: 2, temperature: 1, max_tokens: 9, seed: 0, constraint: {json_schema: answer.json},
  engine: {name: endpoint, base_url: 'http://localhost:8000/v1', model: m, api: chat}}
"""
FORMATS = ("prompt_response", "chat_history", "sharegpt", "messages", "multiple_choice", "gsm8k", "text")
OTHER = """\
dataset:
  train:
    path: {{hub: org/d, revision: {commit}}}
    format: {format}
    fill: {{name: x}}
    sample: {{share: 0.5}}
  test:
    path: {{hub: org/d, revision: {commit}}}
    format: {format}
    where: [{{field: a, present: true}}]
    sample: {{n: 5, seed: 2, repeat: 3, deduplicate: true}}
prompt: {{template: prompts/tiny.jinja, max_length: 90}}
model: {{base: org/name, revision: 0123456789abcdef0123456789abcdef01234567, dtype: float32}}
tuning: {{method: full}}
training: {{epochs: 1, learning_rate: 1e-3, batch_size: 8, seed: 1}}
"""
SCHEDULES = (
    "{name: cosine_with_min_lr, min_lr_rate: 0.1}",
    "{name: polynomial, power: 2}",
    "{name: inverse_sqrt, timescale: 9}",
    "{name: warmup_stable_decay, decay_ratio: 0.1}",
)
MIXED = RECIPE.replace(
    "test: {path: data/test.jsonl, format: round1}",
    "test: {path: data/c.csv, format: columns, prompt: {q: Q}, target: {a: A}, id: I, gold: G}",
)
TUNINGS = {
    "patterns": "lora, r: 4, lora_alpha: 8, rank_pattern: {k_proj: 2}, alpha_pattern: {v_proj: 3}, "
    "initialise: {of: {small: 0.5, other: 1.5}, combination: ties, density: 0.5, seed: 3}",
    "plus": "lora_plus, r: 4, lora_alpha: 8, learning_rate_ratio: 2.0",
    "pissa": "pissa, r: 4, lora_alpha: 8, iterations: 3",
    "quantized": "qlora, r: 4, lora_alpha: 8, quantization: {type: nf4, double: true}, merge_into: original",
    "ia3": "ia3, target_modules: [up_proj, down_proj], feedforward_modules: [down_proj]",
    "p": "p_tuning, virtual_tokens: 3, encoder: lstm, encoder_hidden_size: 5",
    "prefix": "prefix_tuning, virtual_tokens: 3, projection_hidden_size: 5",
    "combined": "combined, of: {small: 0.5, other: 1.5}, combination: ties, density: 0.5, seed: 3",
}
VOTERS = RECIPE.replace(
    "max_length: 256",
    "max_length: 256, examples: {k: 2, select: fixed, seed: 5}, variants: {short: prompts/tiny.jinja}",
).replace(
    "match: last}, rule: majority",
    "match: last, map: {a: A}}, rule: weighted, weights: {own: 2}, members: [small]",
)
PARTS_OF_A_LEAF = (
    *("prompt", "target", "fill", "roles", "of", "rank_pattern", "alpha_pattern", "map", "weights", "own"),
)
"""Mappings that users write: each key has a name of its own."""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Graph]:
    """Recipes that have every field between them."""
    place: Folder = folder(tmp_path_factory.mktemp("fields") / "it")
    place.path("recipes/data/c.csv").write_text("Q,A,I,G\n")
    place.path("recipes/answer.json").write_text("{}")
    recipes = {"columns": COLUMNS, "small": MIXED, "voters": VOTERS, "asked": ASKED}
    recipes |= {format: OTHER.format(format=format, commit="c" * 40) for format in FORMATS}
    recipes |= {f"parsed-{i}": PARSED.replace("SCHEDULE", one) for i, one in enumerate(SCHEDULES)}
    for name, text in recipes.items():
        place.path(f"recipes/{name}.yaml").write_text(text)
    recipes["stand-in"] = RECIPE.replace("{recipe: small-base}", "{stand_in: {family: qwen2}}")
    place.path("recipes/stand-in.yaml").write_text(recipes["stand-in"])
    place.path("recipes/other.yaml").write_text(RECIPE)
    head = RECIPE[: RECIPE.index("sampling:")]
    for name, tuning in TUNINGS.items():
        text = re.sub("tuning: .*", f"tuning: {{method: {tuning}}}", head)
        if name == "combined":
            text = re.sub("(  train|training|deepspeed): .*\n", "", text)
        place.path(f"recipes/{name}.yaml").write_text(text)
    return [place.graph(name) for name in (*recipes, "small-base", *TUNINGS)]


def leaves(model: Any, path: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Dotted path and owners of every leaf below a section."""
    for name, field in model.model_fields.items():
        inner = f"{path}.{name}" if path else name
        if owners(field):
            yield inner, owners(field)
        if get_origin(field.annotation) not in (list, dict):  # which are one place in a slice
            for section in sections(field.annotation):
                yield from leaves(section, inner)


def sections(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from sections(part)


DECIDING = {path for path, of in leaves(Recipe) if not {EXECUTION, SOURCE} & set(of)}


def named(graph: Graph) -> set[str]:
    """The field behind every place in every slice of a graph."""
    found = set()
    for name, node in graph.products.items():
        if node.product == "report":  # shows whole sections, sources included
            continue
        for place, value in flat(node.slice):
            if value is None and place == "deepspeed":  # the section is left out
                continue
            field = field_of(node.product, name, node.slice, place)
            if field:
                head, _, last = field.rpartition(".")
                found.add(head if head.split(".")[-1] in PARTS_OF_A_LEAF and head.count(".") >= 1 else field)
    return found


def test_every_leaf_is_named_and_nothing_else(graphs: list[Graph]) -> None:
    inputs = {"dataset.train.sources", "dataset.test.sources"}  # of a mixture, in no slice
    also = {path for path in DECIDING if path.startswith("dataset.validation.")}  # sources like `train`
    assert set.union(*map(named, graphs)) == DECIDING - inputs - also


def test_values_are_those_of_the_recipe(graphs: list[Graph]) -> None:
    """A name is right if the recipe has that very value there."""
    greedy = ("greedy", "base")  # sample with values of their own
    for graph in graphs:
        recipe = dict(flat(graph.recipe.model_dump(mode="json")))
        for name, node in graph.products.items():
            if name in greedy or name == "model" and node.product == "merged":
                continue
            for place, value in flat(node.slice):
                field = field_of(node.product, name, node.slice, place)
                if "." in name and place == "sampling.seed":  # a variant's is derived
                    assert value != recipe[place]
                    continue
                assert field is None or recipe.get(field) == value, (name, place, field)


def test_sources_are_named() -> None:
    assert source_of("rows", "rows_train", {}) == "dataset.train"
    assert source_of("rows", "other/rows_test", {}) == "dataset.test"
    assert source_of("rows", "rows_test", {"split": {"part": "test"}}) == "dataset.train"
    assert source_of("predictions", "greedy", {}, "json_schema") == "sampling.constraint.json_schema"
    assert source_of("predictions", "predictions.short", {}, "template") == "prompt.variants.short"
    assert source_of("shards", "shards_test", {"split": "test"}) == "prompt.template"
    assert source_of("shards", "other.x/shards_test", {"split": "test"}) == "prompt.template"
    assert source_of("shards", "other.x/shards_test.short", {"split": "test"}) == "prompt.variants.short"
