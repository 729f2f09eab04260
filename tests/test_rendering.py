"""Messages -> token ids: the same in training and prediction, and nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen import write_tokenizer
from token_rows import listed

from workflow import bounds
from workflow.errors import BuildError
from workflow.rendering import Renderer
from workflow.tiny_model import CHAT_TEMPLATE

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
    return Renderer(TINY)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("qwen")
    write_tokenizer(folder)
    return Renderer(folder)


@pytest.fixture
def changed(tiny: Renderer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the tiny tokenizer another chat template for one test."""

    def change(template: str) -> Renderer:
        monkeypatch.setattr(tiny.tokenizer, "chat_template", template)
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
    text = one.text(MESSAGES, "r")
    assert (text.prompt, text.answer) == (CHAT, "答案是：A")
    assert one.tokenizer.convert_ids_to_tokens([text.stop]) == ["<|im_end|>"]
    asked = one.text(MESSAGES[:-1], "r")
    assert (asked.prompt, asked.answer, asked.stop) == (CHAT, "", None)
    [prompt, answer] = listed(one.encode([text.prompt, text.answer], ["r", "r"]))
    whole = one.tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    [ids] = listed(one.encode([whole], ["r"]))
    assert ids[: len(prompt)] == prompt
    assert ids[len(prompt) : -1] == [*answer, text.stop]  # then the template's line break
    assert one.tokenizer.decode([*answer, text.stop]) == "答案是：A<|im_end|>"
    assert "You are a helpful assistant." in one.text(MESSAGES[1:], "r").prompt


def test_what_prediction_must_know(tiny: Renderer, qwen: Renderer) -> None:
    assert (tiny.rendering.stop_token_ids, tiny.rendering.pad_token_id) == ([418, 420], 418)
    assert (qwen.rendering.stop_token_ids, qwen.rendering.pad_token_id) == ([151643, 151645], 151643)


WRITTEN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(user=WRITTEN, answer=WRITTEN)
def test_any_text_survives(tiny: Renderer, qwen: Renderer, user: str, answer: str) -> None:
    import unicodedata

    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    for one in (tiny, qwen):
        text = one.text(messages, "r")
        prompt, labels = listed(one.encode([text.prompt, text.answer], ["r", "r"]))
        assert one.text(messages[:1], "r").prompt == text.prompt
        assert prompt
        assert text.stop in one.stop_ids
        back = one.backend.decode([*labels, text.stop], skip_special_tokens=False)
        assert back == unicodedata.normalize("NFC", answer) + "<|im_end|>"


@pytest.mark.parametrize(
    "template",
    [
        CHAT_TEMPLATE,
        "{{ bos_token }}{% for m in messages if m.role != 'user' %}{{ loop.index0 }}{{ m.content | tojson }}"
        "{% endfor %}{{ eos_token }}{{ tools is none }}{{ documents }}",
        "{%- set ns = namespace(n=0) %}\n  {%- for m in messages %}\n {%- set ns.n = ns.n + 1 %}\n"
        "{{ m['role'] + ns.n | string }}\n{%- if m.reasoning_content is defined %}!{%- endif %}{%- endfor %}"
        "{% if add_generation_prompt %}>{% else %}{% generation %}x{% endgeneration %}{% endif %}",
    ],
)
def test_the_chat_is_what_transformers_makes_of_it(changed: Any, template: str) -> None:
    one = changed(template)
    for messages in (MESSAGES, MESSAGES[1:], MESSAGES[:1], [{"role": "user", "content": "<|im_end|>\u2028"}]):
        for open_turn in (True, False):
            wanted = one.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=open_turn
            )
            assert one._chat_text(messages, open_turn) == wanted


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_special_token_in_the_data(tiny: Renderer, turn: int) -> None:
    messages = [dict(m) for m in MESSAGES]
    messages[turn]["content"] += "<|im_end|>x"
    with pytest.raises(BuildError, match=r"row r: the \w+ turn holds the special token '<\|im_end\|>'"):
        tiny.text(messages, "r")


def test_an_empty_answer(tiny: Renderer) -> None:
    with pytest.raises(BuildError, match="row r: the answer is empty"):
        tiny.text([*MESSAGES[:2], {"role": "assistant", "content": ""}], "r")


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
        changed(template).text(messages, "r")


def test_a_doubled_bos(tiny: Renderer, changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.tokenizer._special_tokens_map, "bos_token", "<|endoftext|>")
    with pytest.raises(BuildError, match="begins with '<.endoftext.>' twice"):
        changed("<|endoftext|>{{ bos_token }}" + CHAT_TEMPLATE).text(MESSAGES, "r")
    text = changed("{{ bos_token }}" + CHAT_TEMPLATE).text(MESSAGES, "r")
    [ids] = listed(tiny.encode([text.prompt], ["r"]))
    assert ids.count(418) == 1


def test_a_tokenizer_that_drops_chinese(tmp_path: Path) -> None:
    shutil.copy(DATA / "tiny_bpe/tiny_bpe_tokenizer.json", tmp_path / "tokenizer.json")
    write_config(tmp_path)
    one = Renderer(tmp_path)
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
            Renderer(tmp_path)

    (tmp_path / "tokenizer.json").write_text("{}")
    write_config(tmp_path)
    refused("the tokenizer cannot be loaded")
    shutil.copy(TINY / "tokenizer.json", tmp_path)
    write_config(tmp_path, chat_template=None)
    refused("no chat template")
    write_config(tmp_path, eos_token=None)
    refused("neither generation config nor tokenizer names a stop token")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 420')
    refused("generation_config.json: damaged")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [420]}')
    assert Renderer(tmp_path).stop_ids == [420]
