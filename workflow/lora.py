"""The arithmetic of `adapter_config.json`: which rank, alpha and scaling a module has."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from workflow.errors import BuildError

Config = dict[str, Any]
PATTERNS = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}


def by_pattern(path: Path, config: Config, key: str, module: str) -> Any:
    """Look up a module's rank or alpha: the first pattern that matches the end of its name, else the default.

    As `get_pattern_key` in peft/utils/other.py, with Python's `re` on purpose: training chose by it too.
    """
    patterns: Config = config.get(PATTERNS[key]) or {}
    try:
        matches = (pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", module))
        value = patterns.get(next(matches, module), config.get(key))
    except re.error as error:
        raise BuildError(f"{path.with_name('adapter_config.json')}: a pattern for {key}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or (key == "r" and value <= 0):
        raise BuildError(f"{path.with_name('adapter_config.json')}: {key} of {module} is {value!r}")
    return value


def rank_and_scaling(path: Path, config: Config, module: str) -> tuple[int, float]:
    """A module's rank, and what the product of its factors is scaled by.

    `LoraLayer.update_layer` in peft/tuners/lora/layer.py; rsLoRA: arXiv 2312.03732.
    """
    rank, alpha = (by_pattern(path, config, key, module) for key in ("r", "lora_alpha"))
    return rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
