"""The names in a recipe's tuning section against the model's own modules, without loading a weight."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from workflow.errors import BuildError
from workflow.recipe.tuning import Factors, Ia3, Qlora

LISTED = 20
"""Module names shown when none matches."""
LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def empty_model(folder: Path) -> Any:
    """The model of `folder` on the meta device: every module and no weight."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def linear_modules(model: Any) -> dict[str, str]:
    """Full name -> last part of every linear module of a model."""
    return {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


def output_name(model: Any) -> str:
    """Name of the module that makes logits; quantisation leaves it as it is."""
    output = model.get_output_embeddings()
    return next(str(name) for name, module in model.named_modules() if module is output)


def is_tied(model: Any) -> bool:
    """Whether input and output embeddings are one weight."""
    return bool(model.get_input_embeddings().weight is model.get_output_embeddings().weight)


def check_names(tuning: Any, folder: Path) -> None:
    """Make sure that everything the recipe names is in the model of `folder`.

    Raises:
        BuildError: Something is not; the message lists what there is.
    """
    refuse_quantized(folder)
    if not isinstance(tuning, Factors | Ia3):
        return
    model = empty_model(folder)
    linear = linear_modules(model)
    if not isinstance(tuning.target_modules, str):
        check_targets(tuning.target_modules, linear)
    if isinstance(tuning, Ia3):
        return
    if is_tied(model) and output_name(model).rpartition(".")[2] in tuning.target_modules:
        raise BuildError(
            "tuning.target_modules: lm_head shares its weight with the input embeddings, which the factors "
            "would change too; train it by modules_to_save: [embed_tokens]"
        )
    _check_saved(tuning, model, linear)
    _check_patterns(tuning, linear)
    _check_layers(tuning, linear)


def refuse_quantized(folder: Path) -> None:
    """A quantised base cannot be merged into, and what is trained on it fits no other.

    Raises:
        BuildError: The model of `folder` is stored quantised.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise BuildError(
            f"{folder}: the base is stored quantised and cannot be merged into; give the unquantised model, "
            "and tuning.method qlora to hold it in 4 or 8 bits while training"
        )


def check_targets(targets: Sequence[str], linear: dict[str, str]) -> None:
    """Make sure that each target names a linear module (the values of `linear`).

    Raises:
        BuildError: One does not.
    """
    last = set(linear.values())
    if missing := [target for target in targets if target.rpartition(".")[2] not in last]:
        _refuse("target_modules", missing, "its linear modules are", last)


def _refuse(field: str, missing: Iterable[str], what: str, known: Iterable[str]) -> None:
    raise BuildError(
        f"tuning.{field}: {', '.join(missing)} match nothing in the model; "
        f"{what} {', '.join(sorted(known)[:LISTED])}"
    )


def _check_saved(tuning: Factors, model: Any, linear: dict[str, str]) -> None:
    names = [name for name, _ in model.named_modules() if name]
    wanted = {saved: [n for n in names if n.endswith(saved)] for saved in tuning.modules_to_save}
    if missing := [saved for saved, found in wanted.items() if not found]:
        last = {name.rpartition(".")[2] for name in names}
        _refuse("modules_to_save", missing, "its modules are", {n for n in last if not n.isdigit()})
    quantized = set(linear) - {output_name(model)}
    for saved, found in wanted.items():
        if isinstance(tuning, Qlora) and not quantized.isdisjoint(found):
            raise BuildError(
                f"tuning.modules_to_save: {saved} is quantised by qlora and cannot be trained whole"
            )


def _check_patterns(tuning: Factors, linear: dict[str, str]) -> None:
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(tuning, field):
            try:
                found = any(re.match(rf"(.*\.)?({pattern})$", name) for name in linear)
            except re.error as error:
                raise BuildError(f"tuning.{field}: {pattern!r} is no regular expression: {error}") from None
            if not found:
                _refuse(field, [pattern], "its linear modules end in", set(linear.values()))
        for name in linear:
            _check_one_pattern(field, getattr(tuning, field), name)


def _check_one_pattern(field: str, patterns: dict[str, Any], name: str) -> None:
    """Training takes the first match in the order given; PEFT sorts them when it saves the adapter."""
    values = {p: value for p, value in patterns.items() if re.match(rf"(.*\.)?({p})$", name)}
    if len(set(values.values())) > 1:
        raise BuildError(
            f"tuning.{field}: {' and '.join(values)} both match {name}; let one pattern match it"
        )


def _check_layers(tuning: Factors, linear: dict[str, str]) -> None:
    there = {int(match[1]) for name in linear if (match := LAYER.search(name))}
    missing = [str(n) for n in tuning.layers_to_transform or () if n not in there]
    if missing:
        _refuse("layers_to_transform", missing, f"it has {len(there)} layers:", map(str, sorted(there)))
