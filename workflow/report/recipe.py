"""A recipe in words and as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from workflow.recipe import Recipe

METHODS = {
    "lora": "LoRA", "qlora": "QLoRA", "dora": "DoRA", "rslora": "rsLoRA", "lora_plus": "LoRA+",
    "pissa": "PiSSA", "ia3": "(IA)³", "full": "full tuning", "prompt_tuning": "prompt tuning",
    "p_tuning": "P-tuning", "prefix_tuning": "prefix tuning", "combined": "combined adapters",
}  # fmt: skip


def title(recipe: dict[str, Any]) -> str:
    """The model and how it was tuned: `Qwen/Qwen2-7B-Instruct, LoRA of rank 8`."""
    base = recipe.get("model", {}).get("base", "model")
    if isinstance(base, dict):
        base = _made(base)
    tuning = recipe.get("tuning")
    if not tuning:
        return f"{base}, not tuned"
    method = METHODS.get(tuning["method"], tuning["method"])
    return f"{base}, {method} of rank {tuning['r']}" if "r" in tuning else f"{base}, {method}"


def asked(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """What was asked in a few lines; the sections say the rest."""
    lines = [(name, _said(recipe.get(section), keys)) for name, section, keys in ASKED]
    data = recipe.get("dataset", {})
    sources = [f"{split} {_source(data[split])}" for split in ("train", "test") if data.get(split)]
    return [(name, text) for name, text in [("Data", "; ".join(sources)), *lines] if text]


ASKED = (
    ("Prompt", "prompt", ("template", "max_length", "overflow", "train_on", "history")),
    ("Model", "model", ("base", "revision", "dtype")),
    ("Tuning", "tuning", ("method", "r", "lora_alpha", "lora_dropout", "target_modules")),
    ("Training", "training", ("epochs", "max_steps", "learning_rate", "batch_size", "seed")),
    ("Answers", "sampling", ("n", "temperature", "top_p", "max_tokens", "seed")),
    ("Vote", "voting", ("rule", "ties", "weights", "members")),
    ("Scores", "scoring", ("metrics", "compare")),
)
"""Line, section, and its fields that a reader looks for first."""


def _said(section: Any, keys: tuple[str, ...]) -> str:
    """`epochs 2, learning_rate 0.003`, of what the section says."""
    if not isinstance(section, dict):
        return ""
    told = {key: section[key] for key in keys if section.get(key) not in (None, [], {})}
    return ", ".join(f"{key} {_short(value)}" for key, value in told.items())


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("...").strip()


def _source(source: dict[str, Any]) -> str:
    """Where rows come from, and in which form."""
    if "sources" in source:
        return f"a mixture of {', '.join(map(str, source['sources']))}"
    return f"{_short(source.get('path'))} ({source.get('format')})"


def _made(base: dict[str, Any]) -> str:
    """A base that is no model of a hub or a folder."""
    if "recipe" in base:
        return f"model of recipe {base['recipe']}"
    stands_for = base.get("stand_in", {})
    stand_in = f"tiny stand-in for {stands_for.get('family') or stands_for.get('like')}"
    return f"new model {base['scratch']}" if "scratch" in base else stand_in


def as_yaml(recipe: dict[str, Any]) -> str:
    """The sections in the order of a recipe, their fields by name; defaults are written out."""
    order = [
        *(name for name in Recipe.model_fields if name in recipe),
        *sorted(recipe.keys() - Recipe.model_fields),
    ]
    return "".join(
        yaml.safe_dump({name: recipe[name]}, allow_unicode=True, sort_keys=True, width=100) for name in order
    )
