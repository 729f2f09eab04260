"""The recipe qwen7b-an: what can be proven of tutorial 0 without its data and without a 7B model.

The rows here are made up in the format of the contest's files, which may not be shipped. The tokenizer is
Qwen's own, rebuilt from its published vocabulary; the architecture is Qwen2-7B's, without memory for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import pytest
from qwen import write_tokenizer
from token_rows import listed, tokenizer

from workflow.errors import BuildError
from workflow.graph import Draw, Graph
from workflow.products import rows, shards
from workflow.recipe import load_recipe, yaml12
from workflow.rendering import Renderer
from workflow.settle import PUBLISHED, settle
from workflow.store.build import Job
from workflow.store.store import Store
from workflow.tokens import read_rendering, read_rows

HERE = Path(__file__).parent
ROOT = HERE.parent
NAME = "qwen7b-an"
RECIPE = ROOT / "recipes" / f"{NAME}.yaml"

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRAIN_SHA = "4d3513ada5e341264ed4b70bb391b33196326d2f04769bca69405e94c461db31"
TEST_SHA = "30bbce949ccee93ae2a21d2fc42ccca9c91d961eeaa1e99646f652025aacee33"

SYSTEM = "你是一个逻辑推理专家，擅长解决逻辑推理问题。"
OPENING = (
    "你是一个逻辑推理专家，擅长解决逻辑推理问题。以下是一个逻辑推理的题目，形式为单项选择题。"
    "所有的问题都是（close-world assumption）闭世界假设，即未观测事实都为假。"
    '请逐步分析问题并在最后一行输出答案，最后一行的格式为"答案是：A"。题目如下：'
)

# Qwen2-7B(-Instruct)'s config.json as published, where it differs from Qwen2Config's defaults.
SIZES = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
END = 151645  # <|im_end|>
FEW = 4000
"""Tokens of a small tokenizer: the first of Qwen's, which hold all bytes."""
VECTORS = {
    "你好": [108386],
    "Hello world": [9707, 1879],
    "答案是：A": [102349, 20412, 5122, 32],
    "<|im_start|>user\n3的阶乘是多少？<|im_end|>\n": [
        151644, 872, 198, 18, 9370, 99736, 100252, 111558, 11319, 151645, 198,
    ],
}  # fmt: skip

# (problem, question, options): several lines, blank lines, and what a careless parser would trip over.
ASKED: list[tuple[str, str, list[str]]] = [
    ("甲、乙、丙三人赛跑。\n\n1. 甲在乙前。\n2. 丙在甲前。\n", "选择题 1：\n谁最先到？", ["甲", "乙", "丙"]),
    (
        "一个函数 f(n)：\n- f(0) = 1\n- f(n) = n * f(n-1)",
        "选择题 2：**\n3的阶乘是多少？",
        ["3", "6", "6", "9"],
    ),
    ("列表 [3, 1, 2] 排序。", "选择题 1：", ["[1, 2, 3]", "A. 不变", " [3, 2, 1] ", "", "B. 以上都不是"]),
    ("{{ problem }} {% raw %} <b>&\"'\\n", "哪一个？\n\n（多行）", ["第一行\n第二行", "\n", "x\n\n", "y\n"]),
    ("字母 ＡＢＣ 和 é。\t制表", "选几？", list("一二三四五六七")),
    ("### 题目:\n里面还有题目", "### 问题：是问题吗？", ["是\nC. 也是", "否"]),
]


def instruction(problem: str, question: str, options: list[str]) -> str:
    """The user turn as the contest's baseline writes it (shared/tutorials.md, section 1)."""
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDEFG", options, strict=False))
    return f"{OPENING}\n\n### 题目:\n{problem}\n\n### 问题:\n{question}\n{lines}\n"


def record(text: str, output: str = "先看条件。\n\n答案是：B", **more: str) -> dict[str, str]:
    return {"instruction": text, "input": "", "output": output, **more}


STAND_INS = [record(instruction(*asked), f"第{i}题。\n\n答案是：B") for i, asked in enumerate(ASKED)]


# --- a folder with the recipe and nothing else ------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipes/prompts").mkdir(parents=True)
    shutil.copy(RECIPE, tmp_path / "recipes")
    shutil.copy(ROOT / "recipes/prompts/logic.jinja", tmp_path / "recipes/prompts")
    return tmp_path


def drawn(folder: Path) -> Graph:
    return Draw(Store(folder / "store"), folder / "recipes").recipe(NAME)


def made(folder: Path, records: list[dict[str, str]], model: Path) -> tuple[Path, dict[str, Any]]:
    """Rows and training shards of `records` with the recipe's own slices: the shards and their counts."""
    products = drawn(folder).products
    data, out = folder / "ana.json", {name: folder / name for name in ("rows", "shards", "work")}
    data.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    for path in out.values():
        path.mkdir()
    rows.make(Job(products["rows_train"].slice, {}, {"data": data}, out["rows"], out["work"], out["work"]))
    node = products["shards_train"]
    inputs = {"rows": out["rows"], "tokenizer": tokenizer(model)}
    return out["shards"], shards.make(
        Job(node.slice, inputs, node.sources, out["shards"], out["work"], out["work"] / "pieces")
    )


# --- Qwen's tokenizer, from its vocabulary ----------------------------------------------------------------


def write_config(folder: Path, first: int, **sizes: Any) -> Any:
    """Write and return a Qwen2 configuration; `first` is the id of <|endoftext|>."""
    from transformers import Qwen2Config

    given = {
        "rms_norm_eps": 1e-6,
        "bos_token_id": first,
        "eos_token_id": first + 2,
        "dtype": "bfloat16",
        **sizes,
    }
    config = Qwen2Config(**given, architectures=["Qwen2ForCausalLM"])
    config.save_pretrained(folder)
    return config


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-7B-Instruct as far as it can be had here: its configuration and its tokenizer."""
    folder = tmp_path_factory.mktemp("qwen") / "Qwen2-7B-Instruct"
    write_config(folder, write_tokenizer(folder), **SIZES)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with few tokens, for tests that only need some tokenizer: it loads ten times as fast."""
    folder = tmp_path_factory.mktemp("small")
    write_config(folder, write_tokenizer(folder, FEW))
    return folder


@pytest.fixture(scope="module")
def renderer(qwen: Path) -> Renderer:
    return Renderer(tokenizer(qwen))


# --- the recipe -------------------------------------------------------------------------------------------


def test_values_are_the_tutorials() -> None:
    recipe = load_recipe(RECIPE).model_dump(exclude_unset=True)
    assert recipe["model"] == {"base": "Qwen/Qwen2-7B-Instruct", "revision": "unpinned", "dtype": "bfloat16"}
    assert recipe["tuning"] == {
        "method": "lora", "r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "target_modules": TARGETS,
    }  # fmt: skip
    assert recipe["training"] == {
        "epochs": 1, "learning_rate": 1e-4, "lr_scheduler": {"name": "linear"}, "batch_size": 4,
        "log_steps": 10, "seed": 42,
    }  # fmt: skip
    assert recipe["execution"] == {"micro_batch": 1, "gradient_checkpointing": True, "save_steps": 100}
    assert recipe["deepspeed"] == {"zero_stage": 2}
    assert recipe["sampling"] == {
        "n": 3, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05, "max_tokens": 512, "seed": 0,
    }  # fmt: skip
    answer = {"pattern": r"答案是[:：]\s*\**\(?([A-G])", "match": "last"}
    assert recipe["voting"] == {"answer": answer, "rule": "majority", "ties": "first"}
    assert recipe["scoring"] == {"metrics": ["accuracy"], "compare": ["base"]}
    assert recipe["prompt"] == {"template": "prompts/logic.jinja", "max_length": 1800, "overflow": "drop"}
    assert [recipe["dataset"][split]["sha256"] for split in ("train", "test")] == [TRAIN_SHA, TEST_SHA]


def test_defaults_it_relies_on_are_the_tutorials() -> None:
    training = load_recipe(RECIPE).training
    assert training is not None
    schedule, optimizer = training.lr_scheduler, training.optimizer
    assert (schedule.warmup_ratio, schedule.warmup_steps, training.max_grad_norm) == (0, 0, 1)
    assert (optimizer.name, optimizer.weight_decay) == ("adamw", 0)


ELSEWHERE = ("experiment", "review", "served")
"""Products of experiments, and of recipes that are served."""


def test_graph_draws_without_data_and_without_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("drawing must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    graph = drawn(folder)
    assert all(graph.node(product) for product, _ in PUBLISHED.values() if product not in ELSEWHERE)
    assert graph.products["rows_train"].digests == {"data": TRAIN_SHA}
    assert graph.products["rows_test"].digests == {"data": TEST_SHA}


def test_a_build_says_all_that_is_missing(folder: Path) -> None:
    with pytest.raises(BuildError) as caught:
        settle(Store(folder / "store"), drawn(folder).node("voted"))
    found = str(caught.value).splitlines()
    data = folder / "recipes/data"
    wanted = {
        f"{data / 'ana.json'}: no such file; put the file with SHA-256 {TRAIN_SHA} there",
        f"{data / 'round1_test.jsonl'}: no such file; put the file with SHA-256 {TEST_SHA} there",
    }
    assert wanted < set(found)
    (unpinned,) = set(found) - wanted
    assert "Qwen/Qwen2-7B-Instruct is unpinned: run `tunemake lock" in unpinned


def test_other_data_is_refused(folder: Path) -> None:
    (folder / "recipes/data").mkdir()
    (folder / "recipes/data/ana.json").write_text("[]")
    with pytest.raises(BuildError, match=rf"ana\.json: SHA-256 is .*train\.sha256 says {TRAIN_SHA}"):
        drawn(folder)


# --- the prompt -------------------------------------------------------------------------------------------


def test_an_rows_are_the_templates_own_rendering(folder: Path, small: Path) -> None:
    _, counts = made(folder, STAND_INS, small)
    assert (counts["rows"], counts["dropped"], counts["truncated"]) == (len(STAND_INS), 0, 0)
    found = [json.loads(line) for line in (folder / "rows/rows.jsonl").read_text("utf-8").splitlines()]
    assert {row["rendered"] for row in found} == {row["instruction"] for row in STAND_INS}
    prompts = [row["prompt"] for row in found]
    for problem, question, options in ASKED[:5]:  # in the last one an option's own text looks like a letter
        assert {"problem": problem, "question": question, "options": options} in prompts


OTHER_TEXT, NO_MATCH = "not what logic.jinja makes: at character", "instruction: does not match"
TAMPERED = [  # (regular expression, replacement, message)
    (r"\n\Z", "", OTHER_TEXT),
    (r"\A", "\n", OTHER_TEXT),
    ("闭世界假设，", "闭世界假设,", OTHER_TEXT),
    ("最后一行的格式", "最后一行格式", OTHER_TEXT),
    ("### 问题:", "### 问题：", NO_MATCH),
    ("\n\n### 题目", "\n### 题目", NO_MATCH),
    (r"A\. ", "A．", NO_MATCH),
    ("\n", "\r\n", NO_MATCH),
]


@pytest.mark.parametrize(("pattern", "replacement", "message"), TAMPERED)
def test_a_tampered_instruction_is_refused(
    folder: Path, small: Path, pattern: str, replacement: str, message: str
) -> None:
    text = STAND_INS[1]["instruction"]
    tampered = re.sub(pattern, replacement, text)
    assert tampered != text
    with pytest.raises(BuildError, match=message):
        made(folder, [STAND_INS[0], record(tampered)], small)


def test_text_in_the_input_column_is_refused(folder: Path, small: Path) -> None:
    with pytest.raises(BuildError, match=r"ana\.json:1: input: has text"):
        made(folder, [record(STAND_INS[0]["instruction"], input="还有")], small)


# --- the model --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers
def test_target_modules_are_qwen2_7bs(qwen: Path) -> None:
    from peft import get_peft_model

    from workflow.training.methods import peft_config
    from workflow.training.targets import check_names, empty_model, linear_modules

    tuning = load_recipe(RECIPE).tuning
    assert tuning is not None and tuning.method == "lora"
    check_names(tuning, qwen)
    with pytest.raises(BuildError, match=r"dense match nothing in the model.*down_proj.*q_proj"):
        check_names(tuning.model_copy(update={"target_modules": ["q_proj", "dense"]}), qwen)
    model = empty_model(qwen)
    linear = list(linear_modules(model).values())
    assert {name: linear.count(name) for name in set(linear)} == dict.fromkeys(TARGETS, 28) | {"lm_head": 1}
    assert sum(p.numel() for p in model.parameters()) == 7_615_616_512  # as published
    adapted = get_peft_model(model, peft_config(tuning, tied=False))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    wide, narrow, inner = 3584, 4 * 128, 18944  # q and o are square; k and v have 4 heads of 128
    per_layer = 8 * (2 * (wide + wide) + 2 * (wide + narrow) + 3 * (wide + inner))
    assert sum(p.numel() for p in trained.values()) == 28 * per_layer == 20_185_088
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(("text", "ids"), VECTORS.items())
def test_tokenizer_is_qwens(renderer: Renderer, text: str, ids: list[int]) -> None:
    assert listed(renderer.encode([text], ["row"])) == [ids]


def test_chatml_text_of_a_row(folder: Path, renderer: Renderer) -> None:
    from workflow.prompts import PromptTemplate

    template = PromptTemplate(folder / "recipes/prompts/logic.jinja")
    prompt = {
        "problem": "甲比乙高。\n乙比丙高。",
        "question": "选择题 1：\n谁最高？",
        "options": ["甲", "乙"],
    }
    row = {"id": "x", "turns": [], "prompt": prompt, "target": {"output": "甲最高。\n\n答案是：A"}}
    text = renderer.text(template.messages(row, answer=True), "x", [2])
    assert text.prompt == (
        "<|im_start|>system\n你是一个逻辑推理专家，擅长解决逻辑推理问题。<|im_end|>\n"
        "<|im_start|>user\n你是一个逻辑推理专家，擅长解决逻辑推理问题。以下是一个逻辑推理的题目，形式为单项选择题。"
        "所有的问题都是（close-world assumption）闭世界假设，即未观测事实都为假。"
        '请逐步分析问题并在最后一行输出答案，最后一行的格式为"答案是：A"。题目如下：\n\n'
        "### 题目:\n甲比乙高。\n乙比丙高。\n\n### 问题:\n选择题 1：\n谁最高？\nA. 甲\nB. 乙\n<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (text.parts[1:], text.stops) == (["甲最高。\n\n答案是：A"], [END])
    asked = renderer.text(template.messages({"id": "x", "turns": [], "prompt": prompt}, answer=False), "x")
    assert asked.prompt == text.prompt  # the very text that training saw


def test_without_a_system_turn_the_default_would_be_used(renderer: Renderer) -> None:
    text = renderer.text([{"role": "user", "content": "问"}], "x").prompt
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")


def test_trained_tokens_are_the_answer_and_the_token_that_serving_stops_at(
    folder: Path, qwen: Path, renderer: Renderer
) -> None:
    out, counts = made(folder, STAND_INS, qwen)
    assert read_rendering(out).stop_token_ids == [END - 2, END]
    answers = set()
    for row in read_rows(out):
        ids, trained = row.input_ids.tolist(), row.trained.tolist()
        assert trained == [0] * row.prompt_tokens + [1] * (len(ids) - row.prompt_tokens)
        assert ids[-1] == END
        assert renderer.backend.decode(ids[: row.prompt_tokens], skip_special_tokens=False).endswith(
            "assistant\n"
        )
        answers.add(renderer.backend.decode(ids[row.prompt_tokens :], skip_special_tokens=False))
    assert answers == {record["output"] + "<|im_end|>" for record in STAND_INS}
    assert counts["trained_tokens"] < counts["tokens"] and counts["longest"] <= 1800


def test_the_longest_an_row_fits_and_a_longer_one_is_left_out_and_counted(
    folder: Path, qwen: Path, renderer: Renderer
) -> None:
    empty = [{"role": role, "content": text} for role, text in (("system", SYSTEM), ("user", ""))]
    around = len(renderer.encode([renderer.text(empty, "x").prompt], ["x"]).ids) + 1  # with the stop token
    assert around < 40 and 1484 + around <= 1800  # 1484: the longest prompt and answer of `an`
    asked = instruction(*ASKED[0])
    room = 1800 - around - len(renderer.encode([asked], ["x"]).ids)
    answers = [" yes" * room, " yes" * (room + 1)]  # one token each
    out, counts = made(folder, [record(asked, answer) for answer in answers], qwen)
    assert (counts["rows"], counts["dropped"], counts["longest"]) == (1, 1, 1800)
    assert [len(row.input_ids) for row in read_rows(out)] == [1800]


# --- its chain, with a tiny model of the same architecture -------------------------------------------------


def write_tiny_model(folder: Path) -> None:
    """Random weights of Qwen2's architecture with fewer key than query heads, and Qwen's first tokens."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    first = write_tokenizer(folder, FEW)
    sizes = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": first + 3, "tie_word_embeddings": False,
        "max_position_embeddings": 4096,
    }  # fmt: skip
    generation = (folder / "generation_config.json").read_bytes()
    config = write_config(folder, first, **sizes)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)


def write_stand_ins(folder: Path) -> dict[str, Path]:
    """Twelve `an` rows, and four problems without answers: out of order, two of them with the same text."""
    test = [
        {
            "problem": ASKED[i][0],
            "questions": [{"question": ASKED[q][1], "options": ASKED[q][2]} for q in questions],
            "id": f"round1_test_data_{number:03d}",
        }
        for number, i, questions in ((10, 0, [0]), (2, 1, [1, 0, 2]), (11, 0, [0]), (0, 4, [4, 1]))
    ]
    folder.mkdir()
    texts = {
        "ana.json": json.dumps(STAND_INS * 2, ensure_ascii=False),
        "round1_test.jsonl": "".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in test),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {"train": folder / "ana.json", "test": folder / "round1_test.jsonl"}


def write_recipe(folder: Path) -> None:
    """The recipe with another base and other data; nothing else is changed."""
    recipe = yaml12.parse(RECIPE.read_text(encoding="utf-8")).value
    for split, path in write_stand_ins(folder / "data").items():
        recipe["dataset"][split]["sha256"] = sha256(path.read_bytes()).hexdigest()
    write_tiny_model(folder / "models/tiny")
    recipe["model"] = {"base": "models/tiny", "dtype": recipe["model"]["dtype"]}
    recipe["execution"] |= {"processes": 1, "save_steps": 2}
    (folder / f"{NAME}.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_chain_with_a_tiny_model(folder: Path) -> None:
    write_recipe(folder / "recipes")
    shutil.copy(ROOT / "Snakefile", folder)
    for name in ("rules", "profiles", "schemas"):
        shutil.copytree(ROOT / name, folder / name)
    results = f"results/{NAME}"
    command = [sys.executable, "-m", "snakemake", f"{results}/voted.jsonl", f"{results}/submission.jsonl"]
    environment = {k: v for k, v in os.environ.items() if k != "TUNEMAKE_STORE"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--cores", "2"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    voted = {line["id"]: line for line in lines(folder / results / "voted.jsonl")}
    problems = {"round1_test_data_000": 2, "round1_test_data_002": 3, "round1_test_data_010": 1}
    problems["round1_test_data_011"] = 1
    assert list(voted) == [f"{name}#{i}" for name, count in problems.items() for i in range(count)]
    assert all(line["gold"] == [] and line["correct"] is None for line in voted.values())
    assert all(sum(line["votes"].values()) + line["abstentions"] == 3 for line in voted.values())
    assert lines(folder / results / "submission.jsonl") == [
        {"id": name, "questions": [{"answer": voted[f"{name}#{i}"]["answer"]} for i in range(count)]}
        for name, count in problems.items()
    ]
    (config,) = (folder / "store/adapter").glob("*/adapter_config.json")
    adapter = json.loads(config.read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (8, 32, 0.1)
    assert adapter["target_modules"] == sorted(TARGETS)
