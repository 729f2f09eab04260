"""The chat template that is derived for a server, and what refuses one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from token_rows import tokenizer

from workflow.errors import BuildError
from workflow.serving.blocks import blocks_of
from workflow.serving.template import Dialogue

CHOSEN = {"chat_template": "model", "stop": None, "train_on": "last", "history": None}
TALK = (
    '{% block system %}{{ system or "be kind" }}{% endblock %}\n'
    "{% block user %}{{ content }}{% endblock %}{% block assistant %}{{ content }}{% endblock %}"
)
ROUNDS = (
    "{% block user %}\n\n[{{ number }}] {{ content }}\n  answer: {%+ endblock %}\n"
    "{% block assistant %}{{ content }}.{% endblock %}"
)
ONE = "{% block user %}<{{ question }}>{# no #}{% endblock %}{% block assistant %}{{ a }}{% endblock %}"
ASKED = [
    {"role": "user", "content": "a'b\n"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
]


def dialogue(folder: Path, template: str, system: str | None = None, **chosen: Any) -> Dialogue:
    path = folder / "p.jinja"
    path.write_text(template)
    return Dialogue(path, tokenizer(), CHOSEN | chosen, system)


def text(one: Dialogue, messages: list[dict[str, str]]) -> str:
    """What a server would put before the model, proven to have the ids of training."""
    template = one.template()
    found = one.served_ids(template, messages)
    assert found == one.ids(messages)
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(one.tokenizer / "tokenizer.json"))
    return str(backend.decode(found, skip_special_tokens=False))


def test_turns_and_the_default_system(tmp_path: Path) -> None:
    one = dialogue(tmp_path, TALK)
    assert (one.mode, one.default_system) == ("turns", "be kind")
    found = text(one, ASKED)
    assert found.startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\na'b\n<|im_end|>")
    assert found.endswith("<|im_start|>assistant\n")
    assert "be stern" in text(one, [{"role": "system", "content": "be stern"}, *ASKED])


def test_the_recipes_own_system_text(tmp_path: Path) -> None:
    assert "system\nbe brief<" in text(dialogue(tmp_path, TALK, "be brief"), ASKED)


def test_plain_rounds(tmp_path: Path) -> None:
    one = dialogue(tmp_path, ROUNDS, chat_template="plain", stop="###")
    assert text(one, ASKED) == "\n[0] a'b\n\n  answer: c.###\n[1] d\n  answer: "
    assert one.stop == ["###"]


def test_earlier_answers_end_as_they_were_trained(tmp_path: Path) -> None:
    last = text(dialogue(tmp_path, ROUNDS, chat_template="plain"), ASKED)
    every = text(dialogue(tmp_path, ROUNDS, chat_template="plain", train_on="all_assistant"), ASKED)
    assert every.replace("<|im_end|>", "") == last != every


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_only_the_last_rounds(tmp_path: Path, kept: int) -> None:
    one = dialogue(tmp_path, ROUNDS, chat_template="plain", history=kept)
    many = [*ASKED, ASKED[1], {"role": "user", "content": "e"}]
    found = text(one, many)
    assert found.count("answer:") == min(kept, 2) + 1
    assert found.startswith("\n[0] ")


def test_a_row_with_one_field(tmp_path: Path) -> None:
    one = dialogue(tmp_path, ONE)
    assert one.mode == "field"
    assert "user\n<d><|im_end|>" in text(one, [{"role": "user", "content": "d"}])
    assert "assistant\nc<|im_end|>" in text(one, ASKED)


def test_rows_with_several_fields_stay_as_they_are_sent(tmp_path: Path) -> None:
    one = dialogue(tmp_path, "{% block user %}{{ a }}{{ b }}{% endblock %}")
    assert one.mode == "verbatim"
    assert "user\nd<|im_end|>" in text(one, ASKED)


def test_a_models_own_white_space_stays(tmp_path: Path) -> None:
    one = dialogue(tmp_path, TALK)
    own = tmp_path / "tokenizer"
    shutil.copytree(one.tokenizer, own)
    replace(one.chat, template="  \n" + str(one.chat.template)).write(own)
    assert text(replace(one, tokenizer=own), ASKED).startswith("  \n<|im_start|>")


@pytest.mark.parametrize(
    ("template", "system", "reason"),
    [
        (TALK.replace("system or", "persona or"), None, "shows persona of a row"),
        (TALK.replace('{{ system or "be kind" }}', "be kind"), "be brief", "drop serving.system"),
        (ONE.replace("question", "question | tojson"), None, "tojson"),
        ("{% block user %}{% block system %}x{% endblock %}{{ a }}{% endblock %}", None, "stands in block"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, template: str, system: str | None, reason: str) -> None:
    with pytest.raises(BuildError, match=reason):
        dialogue(tmp_path, template, system).template()


def test_another_text_than_in_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dialogue(tmp_path, ROUNDS)
    monkeypatch.setitem(one.blocks, "user", blocks_of(one.path)["assistant"])
    with pytest.raises(BuildError, match="in training it is"):
        one.template()


def test_blocks_are_cut_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "p.jinja").write_text(
        "{% block user %}\n{% if a %}\n  x{{ b }}\n{% endif %}\n{%- endblock %} out "
        "{% block assistant -%}\n y"
        "{% raw %}{{ raw }}{% endraw %}{% endblock assistant %}"
    )
    found = blocks_of(tmp_path / "p.jinja")
    assert found["user"].source == "{% if a %}\n  x{{ b }}\n{% endif %}\n"  # its line end is trimmed again
    assert found["user"].fields == {"a", "b"}
    assert found["assistant"].source == "y{% raw %}{{ raw }}{% endraw %}"
    assert found["assistant"].fields == frozenset()
