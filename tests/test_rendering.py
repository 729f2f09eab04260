"""Messages -> token ids: the same in training and prediction, and nothing lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen import write_tokenizer
from token_rows import listed, tokenizer

from workflow import bounds
from workflow.chat import Chat
from workflow.errors import BuildError
from workflow.products.tokenizer import write_tokenizer as write_tokenizer_product
from workflow.rendering import Renderer
from workflow.tiny_model import CHAT_TEMPLATE
from workflow.tokens import Rendering

ROOT = Path(__file__).parent.parent
TINY = ROOT / "recipes/models/tiny-qwen2"
DATA = Path(__file__).parent / "data"
MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "你好\n"},
    {"role": "assistant", "content": "答案是：A"},
]
CHAT = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n你好\n<|im_end|>\n<|im_start|>assistant\n"


def write_config(folder: Path, kind: str = "PreTrainedTokenizerFast", **changed: Any) -> None:
    config = {"tokenizer_class": kind, "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE, **changed}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def tiny() -> Renderer:
    return Renderer(tokenizer())


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("qwen")
    write_tokenizer(folder)
    return Renderer(tokenizer(folder))


@pytest.fixture
def changed(tiny: Renderer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the tiny tokenizer another chat template for one test."""

    def change(template: str) -> Renderer:
        monkeypatch.setattr(tiny, "chat", replace(tiny.chat, template=template))
        return tiny

    return change


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("你好", [108386]),
        ("Hello world", [9707, 1879]),
        ("答案是：A", [102349, 20412, 5122, 32]),
        (
            "<|im_start|>user\n3的阶乘是多少？<|im_end|>\n",
            [151644, 872, 198, 18, 9370, 99736, 100252, 111558, 11319, 151645, 198],
        ),
    ],
)
def test_qwen_golden_vectors(qwen: Renderer, text: str, ids: list[int]) -> None:
    assert listed(qwen.encode([text], ["r"])) == [ids]


@pytest.mark.parametrize("name", ["tiny", "qwen"])
def test_prompt_and_answer(name: str, request: pytest.FixtureRequest) -> None:
    one: Renderer = request.getfixturevalue(name)
    text = one.text(MESSAGES, "r", [2])
    assert text.parts == [CHAT, "答案是：A"]
    assert [one.backend.id_to_token(stop) for stop in text.stops] == ["<|im_end|>"]
    asked = one.text(MESSAGES[:-1], "r")
    assert (asked.parts, asked.stops) == ([CHAT], [])
    [prompt, answer] = listed(one.encode(text.parts, ["r", "r"]))
    [ids] = listed(one.encode([one.chat.text(MESSAGES, False)], ["r"]))
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) : -1] == [*answer, *text.stops]  # then the template's line break
    assert one.backend.decode([*answer, *text.stops], skip_special_tokens=False) == "答案是：A<|im_end|>"
    assert "You are a helpful assistant." in one.text(MESSAGES[1:], "r").prompt


def test_what_prediction_must_know(tiny: Renderer, qwen: Renderer) -> None:
    assert tiny.chat.rendering(None) == Rendering(stop_token_ids=[418, 420], stop=[], pad_token_id=418)
    assert qwen.chat.rendering(None) == Rendering(
        stop_token_ids=[151643, 151645], stop=[], pad_token_id=151643
    )
    assert replace(tiny.chat, pad_id=None).rendering("###").pad_token_id == 418


WRITTEN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(user=WRITTEN, answer=WRITTEN)
def test_any_text_survives(tiny: Renderer, qwen: Renderer, user: str, answer: str) -> None:
    import unicodedata

    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    for one in (tiny, qwen):
        text = one.text(messages, "r", [1])
        prompt, labels = listed(one.encode(text.parts, ["r", "r"]))
        assert one.text(messages[:1], "r").prompt == text.prompt
        assert prompt
        assert set(text.stops) <= set(one.chat.stop_ids)
        back = one.backend.decode([*labels, *text.stops], skip_special_tokens=False)
        assert back == unicodedata.normalize("NFC", answer) + "<|im_end|>"


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_special_token_in_the_data(tiny: Renderer, turn: int) -> None:
    messages = [dict(m) for m in MESSAGES]
    messages[turn]["content"] += "<|im_end|>x"
    with pytest.raises(BuildError, match=r"row r: the \w+ turn holds the special token '<\|im_end\|>'"):
        tiny.text(messages, "r", [2])


def test_an_empty_answer(tiny: Renderer) -> None:
    with pytest.raises(BuildError, match="row r: the answer is empty"):
        tiny.text([*MESSAGES[:2], {"role": "assistant", "content": ""}], "r", [2])


LOOP = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ CONTENT }}END{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            LOOP.replace("CONTENT", "m['content']|trim").replace("END", "<|im_end|>\n"),
            "changes the prompt or the",
        ),
        (
            LOOP.replace("CONTENT", "m['content']").replace("END", "\n"),
            r"puts '\\n' behind the answer, not a stop",
        ),
        (
            LOOP.replace("CONTENT", "m['content']").replace("END", ""),
            "puts '' behind the answer, not a stop token",
        ),
        (
            LOOP.replace("CONTENT", "m['content']").replace("END", " <|im_end|>"),
            "puts ' <|im_end|>' behind".replace("|", r"\|"),
        ),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "not finished after",
        ),
        ("{{ raise_exception('no system turn') }}", "chat template: no system turn"),
        ("{{ ''.__class__.__mro__ }}", "chat template: .*unsafe"),
        ("{% for", "chat template: "),
        ("{{ messages.x.y }}", "chat template: "),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "chat template: .*recursion"),
        ("{{ 'a' * 99999999999 }}", "chat template: MemoryError"),
    ],
)
def test_chat_templates_that_misbehave(
    changed: Any, template: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SECONDS", 0.5)
    messages = [*MESSAGES[:2], {"role": "assistant", "content": "答案是：A\n"}]
    with pytest.raises(BuildError, match=message):
        changed(template).text(messages, "r", [2])


def test_a_doubled_bos(tiny: Renderer, changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "chat", replace(tiny.chat, names={"bos_token": "<|endoftext|>"}))
    with pytest.raises(BuildError, match="begins with '<.endoftext.>' twice"):
        changed("<|endoftext|>{{ bos_token }}" + CHAT_TEMPLATE).text(MESSAGES, "r", [2])
    text = changed("{{ bos_token }}" + CHAT_TEMPLATE).text(MESSAGES, "r", [2])
    [ids] = listed(tiny.encode([text.prompt], ["r"]))
    assert ids.count(418) == 1


def test_a_tokenizer_that_drops_chinese(tmp_path: Path) -> None:
    shutil.copy(DATA / "tiny_bpe/tiny_bpe_tokenizer.json", tmp_path / "tokenizer.json")
    write_config(tmp_path)
    one = Renderer(tokenizer(tmp_path))
    assert listed(one.encode(["plain text"], ["r"]))
    with pytest.raises(
        BuildError, match="row r7: the tokenizer loses the characters 答 案 是 ：; use another tokenizer"
    ):
        one.encode(["ok", "答案是：A"], ["r6", "r7"])


def test_bytes_are_compared_exactly(tiny: Renderer, qwen: Renderer) -> None:
    texts = ["答案是：A", "", "x", "\U0001f600\u0301", "<|im_end|>", "é"] * 20
    for one in (tiny, qwen):
        table, encoded = one.encoder.table, one.encode(texts, texts)
        assert table is not None
        assert table.lost(*encoded, texts) == []
        for i, token in ((0, 40), (encoded.ends[0], 41)):
            ids = encoded.ids.copy()
            ids[i] = token
            assert table.lost(ids, encoded.ends, texts) == [0 if i == 0 else 2]
        moved = encoded.ends.copy()
        moved[0] -= 1  # the same bytes, but one of them belongs to the next text
        assert table.lost(encoded.ids, moved, texts) == [0]


def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(BuildError, match=message):
            write_tokenizer_product(tmp_path, tmp_path)

    (tmp_path / "tokenizer.json").write_text("{}")
    write_config(tmp_path)
    refused("the tokenizer cannot be loaded")
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    write_config(tmp_path, eos_token=None)
    refused("neither generation config nor tokenizer names a stop token")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 420')
    refused("generation_config.json: damaged")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [420]}')
    write_config(tmp_path, chat_template=None)
    assert write_tokenizer_product(tmp_path, tmp_path) == 421
    assert Chat.read(tmp_path).stop_ids == [420]
    with pytest.raises(BuildError, match="no chat template"):
        Renderer(tmp_path)


def test_limits_of_the_tokenizers_own_count_for_nothing(tmp_path: Path) -> None:
    settings = json.loads((TINY / "tokenizer.json").read_text())
    settings["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
    write_config(tmp_path)
    assert len(Renderer(tokenizer(tmp_path)).encode(["小明和小红和小刚"], ["r"]).ids) > 3


def test_a_damaged_product_is_named(tmp_path: Path) -> None:
    shutil.copytree(tokenizer(), tmp_path, dirs_exist_ok=True)
    for name in ("tokenizer.json", "chat.json"):
        (tmp_path / name).chmod(0o644)
        (tmp_path / name).write_text("{}")
        with pytest.raises(BuildError, match=f"{name}: damaged"):
            Renderer(tmp_path)
