"""The derived chat template as Jinja: macros of the recipe's blocks, their messages, the model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflow.errors import BuildError

if TYPE_CHECKING:
    from workflow.serving.template import Dialogue

_HEAD = "{#- Made by tunemake: what a client says is put as the prompt template puts it in training. -#}\n"
_PLAIN = """\
{{- %(begin)s }}
{%%- for message in messages %%}
  {{- message['content'] }}
  {%%- if message['role'] == 'assistant' %%}{{- %(end)s }}{%% endif %%}
{%%- endfor -%%}
"""


def derived(dialogue: Dialogue) -> str:
    """The chat template, in the Jinja of transformers and vLLM.

    Raises:
        BuildError: The model has no chat template, or the system text cannot be known.
    """
    if dialogue.chosen["chat_template"] == "plain":
        own = _PLAIN % {"begin": ascii(dialogue.chat.begin), "end": ascii(dialogue.behind_answer)}
    elif dialogue.chat.template:
        own = dialogue.chat.template
    else:
        raise BuildError(f"{dialogue.tokenizer}: the tokenizer has no chat template; nothing can be served")
    return _HEAD + _macros(dialogue) + _system(dialogue) + _turns(dialogue) + own


def _macros(dialogue: Dialogue) -> str:
    """A macro for each block that shows what a client says; its text is the block's to the letter."""
    found, blocks = "", dialogue.blocks
    if "system" in blocks and blocks["system"].fields == {"system"}:
        found += _macro("system", "system", blocks["system"].source)
    if dialogue.mode == "field":
        found += _macro("user", dialogue.field, blocks["user"].source)
    elif dialogue.mode == "turns":
        for role in ("user", "assistant", "tool"):
            if role in blocks:
                found += _macro(role, "content, number", blocks[role].source)
    return found


def _macro(role: str, arguments: str, source: str) -> str:
    return f"{{%- macro said_by_{role}({arguments}) %}}\n{source}{{%+ endmacro -%}}\n"


def _system(dialogue: Dialogue) -> str:
    block, default = dialogue.blocks.get("system"), dialogue.default_system
    own = "said_by_system(own)" if block and block.fields == {"system"} else "own"
    return (
        "{%- set own = messages[0]['content'] if messages and messages[0]['role'] == 'system' else none -%}\n"
        "{%- set rest = messages if own is none else messages[1:] -%}\n"
        f"{{%- set opening = {ascii(default)} if own is none else {own} -%}}\n"
        "{%- set made = namespace(messages=[{'role': 'system', 'content': opening}] if opening else [], "
        "round=0) -%}\n"
    )


def _turns(dialogue: Dialogue) -> str:
    kept = dialogue.chosen["history"]
    asked = "rest | selectattr('role', 'equalto', 'user') | list | length"
    dropped = "0" if kept is None else f"[{asked} - {kept + 1}, 0] | max"
    return (
        f"{{%- set dropped = {dropped} -%}}\n"
        "{%- for message in rest -%}\n"
        "  {%- if message['role'] == 'user' %}{% set made.round = made.round + 1 %}{% endif -%}\n"
        "  {%- set number = [made.round - dropped - 1, 0] | max -%}\n"
        "  {%- if not dropped or made.round > dropped -%}\n"
        f"    {{%- set made.messages = made.messages + [{_message(dialogue)}] -%}}\n"
        "  {%- endif -%}\n"
        "{%- endfor -%}\n"
        "{%- set messages = made.messages %}\n"  # the model's own template may begin with white space
    )


def _message(dialogue: Dialogue) -> str:
    """A message as its role's block makes it."""
    if dialogue.mode == "verbatim":
        return "message"
    arguments = "message['content'], number" if dialogue.mode == "turns" else "message['content']"
    roles = [role for role in ("user", "assistant", "tool") if role in dialogue.blocks]
    text = "message['content']"
    for role in roles if dialogue.mode == "turns" else ["user"]:
        text = f"said_by_{role}({arguments}) if message['role'] == {role!r} else {text}"
    return f"dict(message, content={text})"
