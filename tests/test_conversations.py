"""Conversations: which turns are trained, how many rounds are kept, plain text, and what limits leave out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from token_rows import job, tokenizer

from workflow.errors import BuildError
from workflow.products import shards
from workflow.products.tokenizer import write_tokenizer
from workflow.prompts import PromptTemplate
from workflow.rendering import Renderer
from workflow.tiny_model import CHAT_TEMPLATE
from workflow.tokenizing import Tokenizing
from workflow.tokens import TokenRow, read_rendering, read_rows

CHAT = (
    "{% block system %}{{ system }}{% endblock %}{% block user %}{{ content }}{% endblock %}"
    "{% block assistant %}{{ content }}{% endblock %}{% block tool %}[{{ content }}]{% endblock %}"
)
ROUNDS = (
    "{% block user %}[Round {{ number }}]\n问：{{ content }}\n答：{% endblock %}"
    "{% block assistant %}{{ content }}\n{% endblock %}"
)


def turns(*texts: str, roles: str = "ua") -> list[dict[str, Any]]:
    names = {"u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[roles[i % len(roles)]], "content": text} for i, text in enumerate(texts)]


def row(conversation: list[dict[str, Any]], system: str = "") -> dict[str, Any]:
    told = {"prompt": {"system": system}, "target": {}, "turns": conversation}
    return {"gold": [], "id": "r1", "index": None, "rendered": None, **told}


def made(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    template: str = CHAT,
    folder: Path | None = None,
    **chosen: Any,
) -> tuple[dict[str, Any], list[TokenRow]]:
    one = job(tmp_path, rows, chosen.pop("split", "train"), chosen.pop("overflow", "error"))
    one.slice.update(chosen)
    one.sources["template"].write_text(template)
    if folder:
        one.inputs["tokenizer"] = folder
    counts = shards.make(one)
    return counts, list(read_rows(tmp_path / "out"))


@pytest.fixture(scope="module")
def tiny() -> Renderer:
    return Renderer(tokenizer())


def texts(tiny: Renderer, one: TokenRow) -> tuple[str, list[str]]:
    """The whole row, and its trained stretches."""
    pieces: list[list[int]] = []
    before = 0
    for token, trained in zip(one.input_ids.tolist(), one.trained.tolist(), strict=True):
        if trained and not before:
            pieces.append([])
        if trained:
            pieces[-1].append(token)
        before = trained
    decode = tiny.backend.decode
    whole = decode(one.input_ids.tolist(), skip_special_tokens=False)
    return whole, [decode(piece, skip_special_tokens=False) for piece in pieces]


TALK = turns("问一", "答一", "问二", "答二", "问三", "答三")


@pytest.mark.parametrize(
    ("train_on", "trained"),
    [("last", ["答三<|im_end|>"]), ("all_assistant", ["答一<|im_end|>", "答二<|im_end|>", "答三<|im_end|>"])],
)
def test_which_turns_are_trained(tmp_path: Path, tiny: Renderer, train_on: str, trained: list[str]) -> None:
    counts, [one] = made(tmp_path, [row(TALK, "规则")], train_on=train_on)
    whole, pieces = texts(tiny, one)
    messages = [{"role": "system", "content": "规则"}, *TALK]
    assert whole == tiny.chat.text(messages, False).removesuffix("\n")
    assert pieces == trained
    assert counts["trained_tokens"] == int(one.trained.sum())
    assert one.prompt_tokens == len(one.input_ids) - len(tiny.encode(["答三"], ["r"]).ids) - 1


def test_everything_is_trained(tmp_path: Path, tiny: Renderer) -> None:
    _, [one] = made(tmp_path, [row(TALK)], train_on="all")
    assert one.trained.all()
    assert texts(tiny, one)[0].startswith("<|im_start|>system\nYou are a helpful")  # the model's own default


def test_turns_of_weight_0(tmp_path: Path, tiny: Renderer) -> None:
    talk = [dict(turn) for turn in TALK]
    talk[1]["weight"] = 0
    _, [one] = made(tmp_path, [row(talk)], train_on="all_assistant")
    assert texts(tiny, one)[1] == ["答二<|im_end|>", "答三<|im_end|>"]
    for turn in talk[1::2]:
        turn["weight"] = 0
    with pytest.raises(BuildError, match="row r1: every answer has weight 0"):
        made(tmp_path / "none", [row(talk)], train_on="all_assistant")


@pytest.mark.parametrize("train_on", ["last", "all_assistant"])
def test_a_test_row_asks_with_the_very_tokens_of_training(tmp_path: Path, train_on: str) -> None:
    _, [trained] = made(tmp_path / "train", [row(TALK)], train_on=train_on)
    counts, [asked] = made(tmp_path / "test", [row(TALK)], split="test", train_on=train_on)
    assert asked.input_ids.tolist() == trained.input_ids[: trained.prompt_tokens].tolist()
    assert asked.prompt_tokens == len(asked.input_ids)
    assert counts["trained_tokens"] == 0


def test_tools_speak_too(tmp_path: Path, tiny: Renderer) -> None:
    talk = turns("几点", "查时间", "三点", "三点了", roles="uata")
    _, [one] = made(tmp_path, [row(talk)], train_on="all_assistant")
    whole, pieces = texts(tiny, one)
    assert "<|im_start|>tool\n[三点]<|im_end|>" in whole
    assert pieces == ["查时间<|im_end|>", "三点了<|im_end|>"]
    with pytest.raises(BuildError, match="row r1 needs the block tool, which the template has not"):
        made(tmp_path / "none", [row(talk)], ROUNDS)


@pytest.mark.parametrize(("history", "kept"), [(None, 3), (5, 3), (2, 3), (1, 2), (0, 1)])
def test_rounds_before_the_last(tmp_path: Path, tiny: Renderer, history: int | None, kept: int) -> None:
    _, [one] = made(tmp_path, [row(TALK)], ROUNDS, chat_template="plain", history=history)
    last = ["问一", "问二", "问三"][-kept:]
    told = "".join(f"[Round {n}]\n问：{q}\n答：{q.replace('问', '答')}\n" for n, q in enumerate(last))
    whole, pieces = texts(tiny, one)
    assert whole == told + tiny.backend.id_to_token(tiny._end)
    assert pieces == ["答三\n" + tiny.backend.id_to_token(tiny._end)]


def test_the_oldest_rounds_go_first(tmp_path: Path, tiny: Renderer) -> None:
    longest = made(tmp_path / "0", [row(TALK)])[1][0]
    for kept in (2, 1):
        size = len(made(tmp_path / f"a{kept}", [row(TALK)], history=kept - 1)[1][0].input_ids)
        for spare in (0, 1):
            told = {"overflow": "drop_oldest_turn", "max_length": size + spare}
            counts, [one] = made(tmp_path / f"b{kept}{spare}", [row(TALK)], **told)
            assert len(one.input_ids) == size
            assert (counts["truncated"], counts["cut_tokens"]) == (1, len(longest.input_ids) - size)
    talk = [*TALK[:-1], {"role": "assistant", "content": "答" * 500}]
    rows = [row(talk), {**row(TALK), "id": "r2"}]
    counts, [one] = made(tmp_path / "c", rows, overflow="drop_oldest_turn", max_length=200)
    assert (counts["rows"], counts["dropped"], one.id) == (1, 1, "r2")


def test_plain_text_with_a_stop_of_its_own(tmp_path: Path, tiny: Renderer) -> None:
    template = (
        "{% block user %}### Instruct:\n{{ system }}\n\n### Output:\n{% endblock %}"
        "{% block assistant %}{{ answer }}\n\n{% endblock %}"
    )
    single = {**row([], "小明"), "target": {"answer": "好"}}
    told = {"chat_template": "plain", "stop": "### End"}
    _, [one] = made(tmp_path, [single], template, **told)
    assert texts(tiny, one) == ("### Instruct:\n小明\n\n### Output:\n好\n\n### End", ["好\n\n### End"])
    assert read_rendering(tmp_path / "out").stop == ["### End"]
    _, [asked] = made(tmp_path / "test", [single], template, split="test", **told)
    assert asked.input_ids.tolist() == one.input_ids[: one.prompt_tokens].tolist()


def test_text_alone_is_trained_whole(tmp_path: Path, tiny: Renderer) -> None:
    template = "{% block assistant %}{{ text }}{% endblock %}"
    single = {**row([]), "target": {"text": "从前有座山"}}
    _, [one] = made(tmp_path, [single], template, chat_template="plain", train_on="all")
    assert (one.prompt_tokens, bool(one.trained.all())) == (0, True)
    assert texts(tiny, one)[0] == "从前有座山" + tiny.backend.id_to_token(tiny._end)


def test_a_tokenizer_that_begins_every_text(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent / "recipes/models/tiny-qwen2"
    settings = json.loads((source / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [419], "tokens": ["<|im_start|>"]}},
    }
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "model/tokenizer.json").write_text(json.dumps(settings))
    kind = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "bos_token": "<|im_start|>",
    }
    (tmp_path / "model/tokenizer_config.json").write_text(
        json.dumps({**kind, "chat_template": CHAT_TEMPLATE})
    )
    (tmp_path / "model/config.json").write_text('{"max_position_embeddings": 8}')
    write_tokenizer(tmp_path / "model", tmp_path / "out")
    assert Renderer(tmp_path / "out").chat.begin == "<|im_start|>"
    single = {**row([]), "target": {"text": "一二三"}}
    told = {"chat_template": "plain", "train_on": "all", "folder": tmp_path / "out"}
    template = "{% block assistant %}{{ text }}{% endblock %}"
    _, [one] = made(tmp_path / "made", [single], template, **told)
    assert one.input_ids.tolist()[0] == 419
    with pytest.raises(BuildError, match="row r1: .* are over the limits"):
        long = {**single, "target": {"text": "一二三四五六七八"}}
        made(tmp_path / "long", [long], template, **told, max_length="model")


def test_a_chat_template_that_rewrites_earlier_turns(tmp_path: Path, tiny: Renderer) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and not loop.last %}..."
        "{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    from dataclasses import replace

    one = Renderer(tokenizer())
    one.chat = replace(one.chat, template=template)
    with pytest.raises(BuildError, match="changes earlier turns of the assistant when .*train_on: last"):
        one.text(TALK, "r1", [1, 3, 5])
    assert one.text(TALK, "r1", [5]).parts[-1] == "答三"


def test_the_share_that_limits_may_cut(tmp_path: Path) -> None:
    rows = [{**row(turns("一" * n, "答")), "id": f"r{n:02d}"} for n in range(1, 11)]
    sizes = [len(one.input_ids) for one in made(tmp_path / "all", rows)[1]]
    told = {"overflow": "drop", "max_length": sizes[7]}
    counts, _ = made(tmp_path / "most", rows, gate={"max_cut": 0.2}, **told)
    assert counts["dropped"] == 2
    with pytest.raises(BuildError, match=r"2 of 10 rows \(20.0%\) are over .*gate.max_cut 0.19 allows"):
        made(tmp_path / "few", rows, gate={"max_cut": 0.19}, **told)


def test_equal_messages_with_other_weights_are_other_rows(tmp_path: Path) -> None:
    chosen = {**job(tmp_path, []).slice, "train_on": "all_assistant"}
    (tmp_path / "p.jinja").write_text(CHAT)
    asking = Tokenizing(chosen, PromptTemplate(tmp_path / "p.jinja"), tokenizer(), False)
    light = [dict(turn) for turn in TALK]
    light[1]["weight"] = 0
    one, other = asking.asked([json.dumps(row(talk)).encode() for talk in (TALK, light)])
    assert one.messages == other.messages
    assert one.digest != other.digest
