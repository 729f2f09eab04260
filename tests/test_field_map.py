"""Every leaf of a recipe changes exactly the products it is declared to decide, and what is behind them."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_schemas import FIELDS, LEAVES

from tests import workspace
from workflow.graph import Graph
from workflow.node import Node
from workflow.recipe.leaf import EXECUTION, SOURCE, owners
from workflow.settle import settle
from workflow.store.address import canonical, sha256_of
from workflow.store.store import Store

MAIN = workspace.RECIPE.replace("execution: {processes: 1, save_steps: 2}", "execution: {processes: 1}")
FOLDER = MAIN.replace("{recipe: small-base}", "models/whole")
STAND_IN = MAIN.replace("{recipe: small-base}", "{stand_in: {family: qwen2}}")
LIKE = "like: models/tiny-qwen2"
HUB = MAIN.replace("base: {recipe: small-base}", f"base: org/model, revision: {'a' * 40}")
ALPACA = MAIN.replace(
    "train: {path: data/train.jsonl, format: round1}",
    "train: {path: data/alpaca.json, format: alpaca, parse: {field: instruction, pattern: '(?s)(?P<q>.*)'}}",
)
COLUMNS = MAIN.replace(
    "train: {path: data/train.jsonl, format: round1}",
    "train: {path: data/table.csv, format: columns, prompt: {q: text}, target: {a: answer}, id: key, "
    "gold: answer}",
)
HUB_DATA = MAIN.replace(
    "path: data/train.jsonl, format: round1",
    f"path: {{hub: org/data, revision: {'c' * 40}, split: train}}, format: round1",
)
SPLIT = MAIN.replace("  test: {path: data/test.jsonl, format: round1}\n", "  split: {test: 0.5, seed: 1}\n")
PLAIN = MAIN.replace("max_length: 256", "chat_template: plain, max_length: 256")
SAMPLED = MAIN.replace("train.jsonl, format: round1", "train.jsonl, format: round1, sample: {n: 5, seed: 2}")
TOGETHER = MAIN.replace(
    "train: {path: data/train.jsonl, format: round1}",
    "train: {format: mixture, sources: {one: {path: data/train.jsonl, format: round1}}}",
)
PAIR = MAIN.replace("max_length: 256", "max_source_length: 200, max_target_length: 60")
LORA = "method: lora, r: 8, lora_alpha: 32, target_modules: all-linear"
QKV = MAIN.replace("all-linear", "[q_proj, v_proj]")
TRAINED_ONLY = MAIN[: MAIN.index("sampling:")]
STARTED = MAIN.replace("method: lora", "method: lora, initialise: {recipe: small}")
OF = "of: {small: 0.5, same-small: 0.25}, combination: ties, density: 0.5, seed: 3"
MIXED = MAIN.replace("method: lora", f"method: lora, initialise: {{{OF}}}")
COMBINED = re.sub("(  train|training|deepspeed): .*\n", "", MAIN.replace(LORA, f"method: combined, {OF}"))
PLUS = MAIN.replace("method: lora", "method: lora_plus, learning_rate_ratio: 4")
PISSA = MAIN.replace("method: lora", "method: pissa, iterations: 3")
QLORA = MAIN.replace("method: lora", "method: qlora, quantization: {type: nf4}")
IA3 = MAIN.replace(
    LORA, "method: ia3, target_modules: [up_proj, down_proj], feedforward_modules: [down_proj]"
)
P_TUNING = TRAINED_ONLY.replace(LORA, "method: p_tuning, virtual_tokens: 3, encoder_hidden_size: 5")
PREFIX = TRAINED_ONLY.replace(LORA, "method: prefix_tuning, virtual_tokens: 3, projection_hidden_size: 5")
SERVED = MAIN + "serving: {questions: [{ask: hi, expect: a}], max_tokens: 8}\n"
SHA = "sha256: " + "0" * 64
HELD_OUT = MAIN.replace(
    "epochs: 1",
    "epochs: 1, validation: {rows: 2, every_steps: 5, keep: best, early_stopping: {patience: 2}}",
)
SHAPED = MAIN.replace("[accuracy]", "[schema_valid], answer_schema: a.json")
WEIGHTED = MAIN.replace("rule: majority", "rule: weighted, weights: {own: 2}")
VARIANTS = MAIN.replace("max_length: 256", "max_length: 256, variants: {short: prompts/tiny.jinja}")
SHOTS = MAIN.replace("max_length: 256", "max_length: 256, examples: {k: 2, select: fixed, seed: 9}")
ENDPOINT = "engine: {name: endpoint, base_url: 'http://localhost:8000/v1', model: m, api: chat}"
ASKED = re.sub("(  train|tuning|training|deepspeed): .*\n", "", MAIN).replace("n: 3", f"n: 3, {ENDPOINT}")
HELD = MAIN.replace("n: 3", "n: 3, constraint: {json_schema: ds.json}")
OWN_CONFIG = MAIN.replace("zero_stage: 2", "zero_stage: 2, config: ds.json")


@dataclass(frozen=True)
class Edit:
    """One leaf changed from one valid value to another."""

    path: str
    old: str
    new: str
    recipe: str = MAIN


def _add(path: str, text: str, recipe: str = MAIN) -> Edit:
    """A leaf that the recipe does not give, added to its section."""
    anchors = {
        "tuning": "method: lora", "training": "epochs: 1", "sampling": "n: 3", "execution": "processes: 1",
        "scoring": "metrics: [accuracy]", "prompt": "max_length: 256",
    }  # fmt: skip
    anchor = anchors[path.split(".")[0]]
    return Edit(path, anchor, f"{anchor}, {text}", recipe)


def _source(path: str, format: str, text: str) -> Edit:
    """A leaf given to a source that does not give it."""
    plain = f"{{path: data/train.jsonl, format: {format}}}"
    recipe = MAIN.replace("{path: data/train.jsonl, format: round1}", plain)
    return Edit(f"dataset.train.{path}", plain, f"{plain[:-1]}, {text}}}", recipe)


def _where(text: str) -> Edit:
    """A condition more than `{field: a, present: true, ...}`."""
    plain = "{path: data/train.jsonl, format: round1, where: [{field: a, present: true}]}"
    recipe = MAIN.replace("{path: data/train.jsonl, format: round1}", plain)
    new = plain.replace("present: true", text if text.startswith("present") else f"present: true, {text}")
    return Edit(f"dataset.train.where.{text.split(':')[0]}", plain, new, recipe)


def _schedule(name: str, field: str, old: str, new: str, more: str = "warmup_steps: 1") -> Edit:
    """A parameter that one shape of the learning rate has."""
    recipe = MAIN.replace("epochs: 1", f"epochs: 1, lr_scheduler: {{name: {name}, {more}, {field}: {old}}}")
    return Edit(f"training.lr_scheduler.{field}", f"{field}: {old}", f"{field}: {new}", recipe)


EDITS = [
    Edit("dataset.train.path.hub", "org/data", "org/other", HUB_DATA),
    Edit("dataset.train.path.revision", "c" * 40, "d" * 40, HUB_DATA),
    Edit("dataset.train.path.split", "split: train", "split: test", HUB_DATA),
    Edit("dataset.train.path.config", "split: train", "split: train, config: main", HUB_DATA),
    _source("fill", "round1", "fill: {name: x}"),
    _source("clean", "round1", "clean: [strip]"),
    _source("where", "round1", "where: [{field: a, present: true}]"),
    Edit(
        "dataset.train.where.field",
        "field: a",
        "field: b",
        MAIN.replace(
            "train.jsonl, format: round1", "train.jsonl, format: round1, where: [{field: a, present: true}]"
        ),
    ),
    _where("present: false"),
    _where("one_of: [x]"),
    _where("none_of: [x]"),
    _where("min_characters: 3"),
    _where("max_characters: 3"),
    _source("explode", "columns, prompt: {q: q}", "explode: list"),
    _source("history_column", "alpaca", "history_column: history"),
    _source("prompt_column", "prompt_response", "prompt_column: input"),
    _source("response_column", "prompt_response", "response_column: target"),
    _source("text_column", "text", "text_column: body"),
    _source("calculator", "gsm8k", "calculator: drop"),
    _source("turns.column", "sharegpt", "turns: {column: messages}"),
    _source("turns.role", "sharegpt", "turns: {role: role}"),
    _source("turns.content", "sharegpt", "turns: {content: text}"),
    _source("turns.roles", "sharegpt", "turns: {roles: {me: user}}"),
    _source("turns.leading", "sharegpt", "turns: {leading: drop}"),
    _source("choice.question", "multiple_choice", "choice: {question: q}"),
    _source("choice.passage", "multiple_choice", "choice: {passage: p}"),
    _source("choice.options", "multiple_choice", "choice: {options: [A, B]}"),
    _source("choice.options_behind", "multiple_choice", "choice: {options_behind: 'Options:'}"),
    _source("choice.label", "multiple_choice", "choice: {label: answer}"),
    _source("choice.label_is", "multiple_choice", "choice: {label_is: index}"),
    _source("choice.several", "multiple_choice", "choice: {several: drop}"),
    Edit("dataset.train.bad_rows", "train.jsonl, format: round1", "train.jsonl, format: round1, bad_rows: 1"),
    Edit(
        "dataset.train.format",
        "alpaca.json, format: alpaca",
        "alpaca.json, format: round1",
        MAIN.replace("data/train.jsonl, format: round1", "data/alpaca.json, format: alpaca"),
    ),
    Edit("dataset.train.parse.field", "field: instruction", "field: input", ALPACA),
    Edit("dataset.train.parse.pattern", "(?s)(?P<q>.*)", "(?s)(?P<q>.+)", ALPACA),
    Edit("dataset.train.prompt", "{q: text}", "{q: key}", COLUMNS),
    Edit("dataset.train.target", "{a: answer}", "{a: text}", COLUMNS),
    Edit("dataset.train.id", "id: key", "id: text", COLUMNS),
    Edit("dataset.train.gold", "gold: answer", "gold: text", COLUMNS),
    Edit("dataset.test.bad_rows", "test.jsonl, format: round1", "test.jsonl, format: round1, bad_rows: 1"),
    Edit("dataset.train.sample.n", "n: 5", "n: 6", SAMPLED),
    Edit("dataset.train.sample.share", "n: 5", "share: 0.5", SAMPLED),
    Edit("dataset.train.sample.seed", "seed: 2", "seed: 3", SAMPLED),
    Edit("dataset.train.sample.deduplicate", "n: 5", "n: 5, deduplicate: true", SAMPLED),
    Edit("dataset.train.sample.repeat", "n: 5", "n: 5, repeat: 2", SAMPLED),
    Edit("dataset.train.sources", "{one:", "{two: {path: data/copy.jsonl, format: round1}, one:", TOGETHER),
    Edit("dataset.split.test", "test: 0.5", "test: 0.25", SPLIT),
    Edit("dataset.split.test_rows", "test: 0.5", "test_rows: 3", SPLIT),
    Edit("dataset.split.seed", "seed: 1}", "seed: 2}", SPLIT),
    Edit("prompt.max_length", "max_length: 256", "max_length: 255"),
    Edit("prompt.max_source_length", "max_source_length: 200", "max_source_length: 199", PAIR),
    Edit("prompt.max_target_length", "max_target_length: 60", "max_target_length: 61", PAIR),
    Edit("prompt.variants", "prompts/tiny.jinja}", "prompts/copy.jinja}", VARIANTS),
    Edit("prompt.train_variants", "tiny.jinja}", "tiny.jinja}, train_variants: true", VARIANTS),
    Edit("prompt.examples.k", "k: 2", "k: 3", SHOTS),
    Edit("prompt.examples.select", "select: fixed", "select: random", SHOTS),
    Edit("prompt.examples.seed", "seed: 9", "seed: 8", SHOTS),
    _add("prompt.overflow", "overflow: drop"),
    _add("prompt.chat_template", "chat_template: plain"),
    Edit("prompt.stop", "max_length: 256", "max_length: 256, stop: '###'", PLAIN),
    _add("prompt.train_on", "train_on: all_assistant"),
    _add("prompt.history", "history: 2"),
    Edit("gate.max_cut", "voting:", "gate: {max_cut: 0.5}\nvoting:"),
    Edit("gate.max_duplicates", "voting:", "gate: {max_duplicates: 0.5}\nvoting:"),
    Edit("gate.min_trained", "voting:", "gate: {min_trained: 0.5}\nvoting:"),
    Edit("gate.max_contaminated", "voting:", "gate: {max_contaminated: 0.5}\nvoting:"),
    Edit("model.base", "org/model", "org/other", HUB),
    Edit("model.revision", "a" * 40, "b" * 40, HUB),
    Edit("model.dtype", "dtype: float32", "dtype: bfloat16"),
    Edit("tuning.method", LORA, "method: full"),
    Edit("tuning.r", "r: 8", "r: 4"),
    Edit("tuning.lora_alpha", "lora_alpha: 32", "lora_alpha: 16"),
    _add("tuning.lora_dropout", "lora_dropout: 0.1"),
    Edit("tuning.target_modules", "all-linear", "[q_proj]"),
    _add(
        "tuning.modules_to_save", "modules_to_save: [lm_head]", MAIN.replace("zero_stage: 3", "zero_stage: 2")
    ),
    _add("tuning.rank_pattern", "rank_pattern: {q_proj: 2}"),
    _add("tuning.alpha_pattern", "alpha_pattern: {q_proj: 2}"),
    _add("tuning.layers_to_transform", "layers_to_transform: [0]", QKV),
    _add("tuning.bias", "bias: lora_only"),
    Edit("tuning.initialise.recipe", "{recipe: small}", "{recipe: same-small}", STARTED),
    Edit("tuning.learning_rate_ratio", "ratio: 4", "ratio: 5", PLUS),
    Edit("tuning.iterations", "iterations: 3", "iterations: 4", PISSA),
    Edit("tuning.quantization.type", "type: nf4", "type: fp4", QLORA),
    Edit("tuning.quantization.double", "type: nf4", "type: nf4, double: true", QLORA),
    Edit("tuning.merge_into", "method: qlora", "method: qlora, merge_into: original", QLORA),
    Edit("tuning.feedforward_modules", "modules: [down_proj]", "modules: [up_proj]", IA3),
    Edit("tuning.virtual_tokens", "virtual_tokens: 3", "virtual_tokens: 4", P_TUNING),
    Edit("tuning.encoder", "virtual_tokens: 3", "virtual_tokens: 3, encoder: lstm", P_TUNING),
    Edit("tuning.encoder_hidden_size", "hidden_size: 5", "hidden_size: 6", P_TUNING),
    Edit("tuning.projection_hidden_size", "hidden_size: 5", "hidden_size: 6", PREFIX),
    *(
        Edit(f"{section}.{field}", old, new, recipe)
        for section, recipe in (("tuning", COMBINED), ("tuning.initialise", MIXED))
        for field, old, new in (
            ("of", "small: 0.5", "small: 0.75"),
            ("combination", "ties", "dare_ties"),
            ("density", "density: 0.5", "density: 0.25"),
            ("seed", "seed: 3}", "seed: 4}"),
        )
    ),
    Edit("training.epochs", "epochs: 1", "epochs: 2"),
    Edit("training.learning_rate", "3e-3", "4e-3"),
    Edit("training.max_steps", "epochs: 1", "max_steps: 5"),
    _add("training.lr_scheduler.name", "lr_scheduler: cosine"),
    _add("training.lr_scheduler.warmup_ratio", "lr_scheduler: {name: linear, warmup_ratio: 0.5}"),
    _add("training.lr_scheduler.warmup_steps", "lr_scheduler: {name: linear, warmup_steps: 5}"),
    _schedule("cosine_with_restarts", "num_cycles", "2", "3"),
    _schedule("cosine_with_min_lr", "min_lr_rate", "0.1", "0.2"),
    _schedule("polynomial", "power", "2", "3"),
    _schedule("polynomial", "lr_end", "0", "1e-9", "power: 2"),
    _schedule("inverse_sqrt", "timescale", "20", "30"),
    _schedule("warmup_stable_decay", "decay_ratio", "0.1", "0.2"),
    _schedule("warmup_stable_decay", "min_lr_ratio", "0", "0.1", "decay_ratio: 0.1"),
    _add("training.optimizer.name", "optimizer: adamw_fused"),
    _add("training.optimizer.weight_decay", "optimizer: {name: adamw, weight_decay: 0.1}"),
    _add("training.optimizer.beta1", "optimizer: {name: adamw, beta1: 0.8}"),
    _add("training.optimizer.beta2", "optimizer: {name: adamw, beta2: 0.99}"),
    _add("training.optimizer.epsilon", "optimizer: {name: adamw, epsilon: 1e-6}"),
    _add("training.packing.length", "packing: {length: 300}"),
    _add("training.group_by_length", "group_by_length: true"),
    _add("training.tf32", "tf32: true"),
    Edit("training.validation.rows", "rows: 2", "rows: 3", HELD_OUT),
    Edit("training.validation.share", "rows: 2", "share: 0.1", HELD_OUT),
    Edit("training.validation.seed", "rows: 2", "rows: 2, seed: 1", HELD_OUT),
    Edit("training.validation.every_steps", "every_steps: 5", "every_steps: 6", HELD_OUT),
    Edit("training.validation.every_epochs", "every_steps: 5", "every_epochs: 1", HELD_OUT),
    Edit("training.validation.keep", "keep: best", "keep: last", HELD_OUT),
    Edit("training.validation.early_stopping.patience", "patience: 2", "patience: 3", HELD_OUT),
    Edit(
        "training.validation.early_stopping.min_delta", "patience: 2", "patience: 2, min_delta: 0.1", HELD_OUT
    ),
    Edit("training.batch_size", "batch_size: 8", "batch_size: 4"),
    _add("training.max_grad_norm", "max_grad_norm: 0.5"),
    Edit("training.log_steps", "log_steps: 2", "log_steps: 1"),
    Edit("training.seed", "seed: 1}", "seed: 2}"),
    Edit("deepspeed.zero_stage", "zero_stage: 2", "zero_stage: 3"),
    Edit("deepspeed.offload_optimizer", "zero_stage: 2", "zero_stage: 2, offload_optimizer: cpu"),
    Edit(
        "deepspeed.offload_parameters",
        "zero_stage: 3",
        "zero_stage: 3, offload_parameters: cpu",
        MAIN.replace("zero_stage: 2", "zero_stage: 3"),
    ),
    Edit("deepspeed.config", "config: ds.json", "config: same.json", OWN_CONFIG),
    Edit("sampling.n", "n: 3", "n: 5"),
    Edit("sampling.temperature", "temperature: 1.0", "temperature: 0.5"),
    _add("sampling.top_p", "top_p: 0.5"),
    _add("sampling.top_k", "top_k: 5"),
    _add("sampling.repetition_penalty", "repetition_penalty: 1.1"),
    Edit("sampling.max_tokens", "max_tokens: 48", "max_tokens: 32"),
    _add("sampling.stop", "stop: ['!']"),
    _add("sampling.logprobs", "logprobs: true"),
    _add("sampling.engine.name", "engine: transformers"),
    _add("sampling.engine.weights", "engine: {name: vllm, weights: adapter}"),
    _add("sampling.engine.quantization", "engine: {name: vllm, quantization: fp8}"),
    _add("sampling.engine.batch_invariant", "engine: {name: vllm, batch_invariant: true}"),
    Edit("sampling.engine.base_url", "localhost:8000", "localhost:8001", ASKED),
    Edit("sampling.engine.model", "model: m,", "model: n,", ASKED),
    Edit("sampling.engine.api", "api: chat", "api: completions", ASKED),
    Edit("sampling.engine.seeds", "api: chat", "api: chat, seeds: false", ASKED),
    _add("sampling.constraint.choice", "constraint: {choice: options}"),
    _add("sampling.constraint.regex", "constraint: {regex: '[A-D]'}"),
    Edit("sampling.constraint.json_schema", "ds.json", "same.json", HELD),
    Edit("sampling.seed", "max_tokens: 48, seed: 0", "max_tokens: 48, seed: 1"),
    Edit("voting.answer.pattern", "([A-D])", "([A-C])"),
    Edit("voting.answer.match", "match: last", "match: first"),
    Edit("voting.answer.map", "match: last", "match: last, map: {a: A}"),
    Edit("voting.answer.normalise", "match: last", "match: last, normalise: text"),
    Edit("voting.rule", "rule: majority", "rule: weighted, weights: {own: 2}"),
    Edit("voting.members", "rule: majority", "rule: majority, members: [same-small]"),
    Edit("voting.weights", "weights: {own: 2}", "weights: {own: 3}", WEIGHTED),
    Edit("voting.ties", "ties: first", "ties: abstain"),
    Edit("voting.seed", "seed: 5", "seed: 6", MAIN.replace("ties: first", "ties: seeded, seed: 5")),
    Edit("scoring.compare", "compare: [base]", "compare: []"),
    Edit("scoring.metrics", "metrics: [accuracy]", "metrics: [accuracy, rouge1]"),
    _add("scoring.stem", "stem: false"),
    _add("scoring.tokenize", "tokenize: zh"),
    _add("scoring.references", "references: mean"),
    _add("scoring.weigh", "weigh: problems"),
    _add("scoring.own", "own: {brevity: '1.0'}"),
    _add("scoring.resamples", "resamples: 500"),
    _add("scoring.seed", "seed: 3"),
    Edit("serving.questions.ask", "ask: hi", "ask: who", SERVED),
    Edit("serving.questions.expect", "expect: a", "expect: b", SERVED),
    Edit("serving.questions", "{ask: hi", "{ask: ho}, {ask: hi", SERVED),
    Edit("serving.system", "max_tokens: 8", "max_tokens: 8, system: be brief", SERVED),
    Edit("serving.max_tokens", "max_tokens: 8", "max_tokens: 9", SERVED),
    Edit("serving.canary", "max_tokens: 8", "max_tokens: 8, canary: false", SERVED),
    Edit("execution.processes", "processes: 1", "processes: 2"),
    _add("execution.micro_batch", "micro_batch: 2"),
    _add("execution.gradient_checkpointing", "gradient_checkpointing: true"),
    _add("execution.save_steps", "save_steps: 1"),
    _add("execution.save_epochs", "save_epochs: 1"),
    _add("execution.report_to", "report_to: [tensorboard]"),
    _add("execution.nvme_path", "nvme_path: /fast"),
    _add("execution.keep_checkpoints", "keep_checkpoints: 1"),
    _add("execution.gpu_memory_utilization", "gpu_memory_utilization: 0.5"),
    _add("execution.max_model_len", "max_model_len: 400"),
    _add("execution.prefix_caching", "prefix_caching: false"),
    _add("execution.endpoint.key_variable", "endpoint: {key_variable: KEY}"),
    _add("execution.endpoint.requests_at_once", "endpoint: {requests_at_once: 2}"),
    _add("execution.endpoint.timeout", "endpoint: {timeout: 9.0}"),
    _add("execution.endpoint.give_up", "endpoint: {give_up: 9.0}"),
    Edit("dataset.train.path", "data/train.jsonl", "data/copy.jsonl"),
    Edit("dataset.train.sha256", "train.jsonl, format: round1", "train.jsonl, format: round1, SHA"),
    Edit("prompt.template", "prompts/tiny.jinja", "prompts/copy.jinja"),
    Edit("scoring.answer_schema", "a.json", "b.json", SHAPED),
    Edit("model.base.recipe", "small-base", "same-base"),
    Edit("model.base.scratch", "models/tiny-qwen2", "models/copy", workspace.BASE),
    Edit("model.base.stand_in.family", "qwen2", "llama", STAND_IN),
    Edit("model.base.stand_in.like", "tiny-qwen2", "copy", STAND_IN.replace("family: qwen2", LIKE)),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> workspace.Folder:
    """A folder in which each path of the recipes has a copy of the same bytes elsewhere."""
    found = workspace.folder(tmp_path_factory.mktemp("fields") / "w")
    recipes = found.path("recipes")
    shutil.copy(recipes / "data/train.jsonl", recipes / "data/copy.jsonl")
    shutil.copy(recipes / "prompts/tiny.jinja", recipes / "prompts/copy.jinja")
    shutil.copytree(recipes / "models/tiny-qwen2", recipes / "models/copy")
    (recipes / "data/alpaca.json").write_text('[{"instruction": "a", "output": "b"}]')
    (recipes / "data/table.csv").write_text("text,answer,key\na,b,c\nd,e,f\n")
    for name in ("a.json", "b.json"):
        (recipes / name).write_text("{}")
    for name in ("ds.json", "same.json"):
        (recipes / name).write_text('{"wall_clock_breakdown": false}')
    (recipes / "same-base.yaml").write_text(workspace.BASE)
    (recipes / "same-small.yaml").write_text(workspace.RECIPE)
    return found


def drawn(place: workspace.Folder, name: str, text: str) -> Graph:
    digest = sha256_of(place.path("recipes/data/train.jsonl"))
    place.path("recipes", f"{name}.yaml").write_text(text.replace("SHA", f"sha256: {digest}"))
    return place.graph(name)


def own(node: Node) -> bytes:
    """What decides a node besides the content of its inputs."""
    return canonical([node.product, node.slice, node.digests, sorted(node.inputs)])


def nodes(graph: Graph) -> dict[str, Node]:
    """Name in the graph -> node; the whole recipe is shown in the report, whatever it decides."""
    return {name: node for name, node in graph.products.items() if name != "report"}


def declared(edit: Edit) -> set[str]:
    """The owners of the edit's leaf."""
    return {owner for path, field, _ in FIELDS if path == edit.path for owner in owners(field)}


@pytest.mark.parametrize("edit", EDITS, ids=[edit.path for edit in EDITS])
def test_a_leaf_changes_what_it_decides(place: workspace.Folder, edit: Edit) -> None:
    assert edit.old in edit.recipe
    before = nodes(drawn(place, "before", edit.recipe))
    after = nodes(drawn(place, "after", edit.recipe.replace(edit.old, edit.new, 1)))
    both = before.keys() & after.keys()
    decided = {name for name in both if own(before[name]) != own(after[name])}
    expected = declared(edit) - {EXECUTION, SOURCE}
    if edit.path == "tuning.method":
        expected |= {"merged"}  # the adapter of a full tuning is the whole model: it needs no base
    if edit.path == "prompt.train_variants":
        expected |= {"shards"}  # which have more source files then
    if edit.path == "scoring.compare":
        assert before.keys() - after.keys() == {"base"}
    assert {before[name].product for name in decided} == expected
    changed = {name for name in both if before[name].address != after[name].address}
    behind = {
        name for name in both
        if {n.address for n in after[name].closure()} & {after[d].address for d in decided}
    }  # fmt: skip
    assert changed == behind


def test_every_leaf_is_tried() -> None:
    tried = {edit.path for edit in EDITS}
    like_train = ("dataset.test.", "dataset.validation.")
    left = {path for path, _ in LEAVES} - tried
    assert {path for path in left if not path.startswith(like_train)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS, ids=[edit.path for edit in EDITS])
def test_a_job_sees_nothing_else(place: workspace.Folder, tmp_path: Path, edit: Edit) -> None:
    """What a leaf does not decide cannot depend on it: its job is told the very same, places apart.

    A maker is given its plan and this record, nothing of the recipe. Those of `execution` and of paths do
    see a difference: for them both values are built (`test_field_bytes.py`).
    """
    told: list[dict[str, Any]] = []
    for name, text in (("before", edit.recipe), ("after", edit.recipe.replace(edit.old, edit.new, 1))):
        graph = drawn(place, name, text)
        store = Store(tmp_path / name)
        found = {}
        for node in graph.products.values():
            settle(store, node)
            where = store.where(node.product, node.address)
            found[node.address] = (node.product, store.plan(node.product, node.address), where)
        told.append(found)
    differ = {told[0][a][0] for a in told[0].keys() & told[1].keys() if told[0][a] != told[1][a]}
    allowed = {
        "execution": {"adapter", "predictions"}, "dataset": {"rows"}, "prompt": {"shards"},
        "model": {"model", "tokenizer"}, "deepspeed": {"adapter"}, "tuning": set(), "scoring": {"scores"},
            "sampling": {"predictions"},
    }  # fmt: skip
    seen = declared(edit) & {EXECUTION, SOURCE}
    assert differ <= (allowed[edit.path.split(".")[0]] if seen else set())
