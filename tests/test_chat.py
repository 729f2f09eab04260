"""The model's chat template: the text that transformers makes, and a short way that is taken only if sure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_rows import TINY, tokenizer

from workflow.chat import Chat, Sandbox, is_opaque
from workflow.tiny_model import CHAT_TEMPLATE

MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "你好\n"},
    {"role": "assistant", "content": " \0答案是：A <b>'\"\\"},
]
LOOP = "{% for m in messages %}BODY{% endfor %}"
OPAQUE = [
    CHAT_TEMPLATE,
    LOOP.replace("BODY", "{{ m.content }}{% if not loop.last %}\n{% endif %}"),
    LOOP.replace("BODY", "{{ bos_token + m['role'] + m['content'] + eos_token }}"),
    "{% if messages[0].role == 'system' %}{{ messages[0]['content'] }}{% endif %}",
    LOOP.replace("BODY", "{% generation %}{{ m.content }}{% endgeneration %}"),
]
BODIES = """
{{ m.content | trim }}
{{ (m.content + 'a') | trim }}
{{ m }}
{{ m | tojson }}
{{ m.items() }}
{% if m.content %}x{% endif %}
{{ m.content * 2 }}
{{ 'a' in m.content }}
{{ m.content[0] }}
{% set x = m %}{{ x.content | upper }}
{% set x %}{{ m.content }}{% endset %}{{ x | upper }}
{% filter upper %}{{ m.content }}{% endfilter %}
{{ loop.previtem.content | upper }}
{{ m[k] | upper }}
{{ loop.nextitem }}
{{ loop.changed(m.content) }}
{{ m.content ~ 'a' }}
{{ m.content == 'S' }}
{{ m.role if m.content else '' }}
"""
SEEN = [
    *(LOOP.replace("BODY", body) for body in BODIES.strip().split("\n")),
    "{% for m in messages recursive %}{{ m.content }}{% endfor %}",
    "{% for m in messages if m.content %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% else %}{{ m.content }}{% endfor %}",
    "{% for m in messages[1:] %}{{ m.content }}{% endfor %}",
    "{{ messages | tojson }}",
    "{{ messages[0] }}",
    "{{ messages[-1].content }}",
    "{% set s = messages[0]['content'] %}{{ s }}",
    "{% macro f(x) %}{{ x.content | upper }}{% endmacro %}" + LOOP.replace("BODY", "{{ f(m) }}"),
    "{% macro f() %}{{ messages[0].content }}{% endmacro %}{{ f() | upper }}",
    "{% block a %}{{ messages[0].content }}{% endblock %}{{ self.a() | upper }}",
    "{{ bos_token }}{% for m in messages if m.role != 'user' %}{{ loop.index0 }}{{ m.content | tojson }}"
    "{% endfor %}{{ eos_token }}{{ tools is none }}{{ documents }}",
    "{%- set ns = namespace(n=0) %}\n  {%- for m in messages %}\n {%- set ns.n = ns.n + 1 %}\n"
    "{{ m['role'] + ns.n | string }}\n{%- if m.reasoning_content is defined %}!{%- endif %}{%- endfor %}"
    "{% if add_generation_prompt %}>{% else %}{% generation %}x{% endgeneration %}{% endif %}",
]


@pytest.fixture(scope="module")
def loaded() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY)


@pytest.mark.parametrize("template", [*OPAQUE, *SEEN])
def test_the_chat_is_what_transformers_makes_of_it(loaded: Any, template: str) -> None:
    chat = replace(Chat.read(tokenizer()), template=template)
    assert chat.names == loaded.special_tokens_map
    for messages in (MESSAGES, MESSAGES[1:], MESSAGES[:1], [{"role": "user", "content": "<|im_end|>\u2028"}]):
        for open_turn in (True, False):
            told = {"tokenize": False, "add_generation_prompt": open_turn}
            try:
                wanted = loaded.apply_chat_template(messages, chat_template=template, **told)
            except Exception as error:
                with pytest.raises(type(error)):
                    chat.text(messages, open_turn)
            else:
                assert chat.text(messages, open_turn) == wanted


def test_the_short_way_is_taken_where_contents_are_only_put_out() -> None:
    parse = Sandbox().parse
    assert [template for template in OPAQUE if not is_opaque(parse(template))] == []
    assert [template for template in SEEN if is_opaque(parse(template))] == []


@pytest.fixture(scope="module")
def opaque() -> list[Chat]:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    return [replace(Chat.read(tokenizer()), template=template, names=names) for template in OPAQUE]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=5)), min_size=1))
def test_the_short_way_gives_the_same_text(opaque: list[Chat], turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    for chat in opaque:
        for open_turn in (True, False):
            assert chat.text(messages, open_turn) == chat._rendered(messages, open_turn)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(a=1) %}{% set n._a = 2 %}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    chat = replace(Chat.read(tokenizer()), template=template)
    with pytest.raises(Exception, match=r"unsafe|cannot set"):
        chat.text(MESSAGES, True)


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    chat = Chat.read(tokenizer())
    chat.write(tmp_path)
    assert Chat.read(tmp_path) == chat
