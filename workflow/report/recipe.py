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
        base = f"model of recipe {base['recipe']}" if "recipe" in base else f"new model {base.get('scratch')}"
    tuning = recipe.get("tuning")
    if not tuning:
        return f"{base}, not tuned"
    method = METHODS.get(tuning["method"], tuning["method"])
    return f"{base}, {method} of rank {tuning['r']}" if "r" in tuning else f"{base}, {method}"


def as_yaml(recipe: dict[str, Any]) -> str:
    """The sections in the order of a recipe, their fields by name; defaults are written out."""
    order = [
        *(name for name in Recipe.model_fields if name in recipe),
        *sorted(recipe.keys() - Recipe.model_fields),
    ]
    return "".join(
        yaml.safe_dump({name: recipe[name]}, allow_unicode=True, sort_keys=True, width=100) for name in order
    )
