"""Tuning methods in PEFT's terms: configuration, quantised base, optimizer, where training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from workflow.checkpoint import naming, read_json
from workflow.errors import BuildError
from workflow.lora import rank_and_scaling
from workflow.recipe.tuning import (
    Dora,
    Factors,
    Ia3,
    LoraPlus,
    Pissa,
    PrefixTuning,
    Prompt,
    PromptTuning,
    PTuning,
    Quantization,
    RsLora,
    Tuning,
)

ENDS = ("embed_tokens", "lm_head")


def tuning_of(chosen: dict[str, Any]) -> Any:
    """The tuning section of a slice of `adapter`."""
    return TypeAdapter(Tuning).validate_python(chosen["tuning"])


def peft_config(tuning: Factors | Ia3 | Prompt, tied: bool) -> Any:
    """What PEFT calls it.

    Args:
        tuning: The method.
        tied: Whether the model's input and output embeddings are one weight, and stay one when trained.
    """
    from peft import IA3Config

    if isinstance(tuning, Prompt):
        return _prompt(tuning)
    if isinstance(tuning, Ia3):
        targets, forward = list(tuning.target_modules), list(tuning.feedforward_modules)
        return IA3Config(target_modules=targets, feedforward_modules=forward, task_type="CAUSAL_LM")
    return _factors(tuning, tied)


def _factors(tuning: Factors, tied: bool) -> Any:
    from peft import LoraConfig

    targets = tuning.target_modules
    initial = "pissa" if isinstance(tuning, Pissa) else True
    if isinstance(tuning, Pissa) and tuning.iterations:
        initial = f"pissa_niter_{tuning.iterations}"
    return LoraConfig(
        r=tuning.r,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(tuning.modules_to_save) or None,
        rank_pattern=dict(tuning.rank_pattern),
        alpha_pattern=dict(tuning.alpha_pattern),
        layers_to_transform=tuning.layers_to_transform,
        bias=tuning.bias,
        use_rslora=isinstance(tuning, RsLora),
        use_dora=isinstance(tuning, Dora),
        init_lora_weights=initial,
        ensure_weight_tying=tied and not {*ENDS}.isdisjoint(tuning.modules_to_save),
        task_type="CAUSAL_LM",
    )


def _prompt(tuning: Prompt) -> Any:
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    shared = {"num_virtual_tokens": tuning.virtual_tokens, "task_type": "CAUSAL_LM"}
    if isinstance(tuning, PTuning):
        kind, width = tuning.encoder.upper(), tuning.encoder_hidden_size
        return PromptEncoderConfig(**shared, encoder_reparameterization_type=kind, encoder_hidden_size=width)
    if isinstance(tuning, PrefixTuning):
        hidden = tuning.projection_hidden_size
        return PrefixTuningConfig(**shared, prefix_projection=hidden is not None, encoder_hidden_size=hidden)
    assert isinstance(tuning, PromptTuning)
    return PromptTuningConfig(**shared)


def quantized(quantization: Quantization, dtype: torch.dtype, left: list[str]) -> dict[str, Any]:
    """Arguments of `from_pretrained` for a quantised base; modules `left` keep their type."""
    from transformers import BitsAndBytesConfig

    four = quantization.type != "int8"
    config = BitsAndBytesConfig(
        load_in_4bit=four,
        load_in_8bit=not four,
        bnb_4bit_quant_type=quantization.type if four else "nf4",
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=left,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": device}}


def optimizer_for(tuning: Any, model: Any, kind: Any, settings: dict[str, Any], decay: float) -> Any:
    """The optimizer of a method that has rates of its own, else None: the Trainer makes its usual one.

    Args:
        tuning: The method.
        model: With its adapter.
        kind: The optimizer's class.
        settings: Its arguments, `lr` among them.
        decay: Weight decay of every factor.
    """
    if not isinstance(tuning, LoraPlus):
        return None
    from peft.optimizers import create_loraplus_optimizer

    ratio = tuning.learning_rate_ratio
    made = create_loraplus_optimizer(
        model, kind, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay, **settings
    )
    made.param_groups = [group for group in made.param_groups if group["params"]]  # DeepSpeed flattens each
    return made


def initialise(model: Any, folder: Path) -> dict[str, int]:
    """Start from the adapter in `folder`: its weights replace the fresh ones of the same name.

    A factor B is rescaled where alpha / r differs, so that the model starts as the other one ended.

    Returns:
        Counts: tensors loaded, missing in `folder` (they start fresh), unexpected in it (left out).

    Raises:
        BuildError: Nothing fits, or a tensor has another shape: another rank or another model.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    theirs, config = load_file(path), read_json(folder / "adapter_config.json")
    ours = get_peft_model_state_dict(model, save_embedding_layers=False)
    loaded = sorted(ours.keys() & theirs.keys())
    if not loaded:
        raise BuildError(
            f"{path}: tuning.initialise: none of its {len(theirs)} tensors belongs to this adapter: "
            f"{naming(sorted(theirs))} unknown; adapt the same modules"
        )
    for name in loaded:
        if ours[name].shape != theirs[name].shape:
            raise BuildError(
                f"{path}: tuning.initialise: {name} is {list(theirs[name].shape)}, here "
                f"{list(ours[name].shape)}; use the same r and rank_pattern"
            )
    wanted = {name: theirs[name] * _ratio(model, path, config, name) for name in loaded}
    set_peft_model_state_dict(model, ours | wanted)
    counts = {"loaded": len(loaded), "missing": len(ours) - len(loaded)}
    return {**counts, "unexpected": len(theirs) - len(loaded)}


def _ratio(model: Any, path: Path, config: dict[str, Any], name: str) -> float:
    """Scaling there over scaling here, for a factor B; 1 for everything else."""
    module, _, kind = name.removeprefix("base_model.model.").rpartition(".lora_")
    if kind != "B.weight":
        return 1.0
    here = model.get_base_model().get_submodule(module).scaling["default"]
    return float(rank_and_scaling(path, config, module)[1] / here)


def _size(parameter: Any) -> int:
    """Elements of a parameter, of the whole one where ZeRO-3 has sharded it."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())


def parameter_counts(model: Any) -> dict[str, Any]:
    """How many parameters a model has, how many are trained, and what share that is.

    Quantised weights count as what they stand for, and weights that ZeRO-3 has sharded as whole ones.
    """
    if hasattr(model, "get_nb_trainable_parameters"):
        trained, every = model.get_nb_trainable_parameters()
    else:
        sizes = [(_size(p), p.requires_grad) for p in model.parameters()]
        trained, every = sum(n for n, grad in sizes if grad), sum(n for n, _ in sizes)
    counts = {"parameters": every, "trained_parameters": trained, "trained_share": round(trained / every, 8)}
    started: dict[str, int] = getattr(model, "started_from", {})
    return counts | {f"initialised_{name}": count for name, count in started.items()}
