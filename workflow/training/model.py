"""Loading the model that is trained, and saving what was trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import AutoConfig, AutoModelForCausalLM, set_seed
from transformers.pytorch_utils import Conv1D

from workflow.errors import BuildError
from workflow.models import tokenizer_files
from workflow.recipe.tuning import Lora, Tuning
from workflow.store.files import remove_tree
from workflow.training.spec import Spec

LISTED = 20
"""Module names shown when none matches."""


def load_model(spec: Spec, folder: Path, seed: int) -> Any:
    """The model of `folder` with its trainable weights in place.

    Weights that plain AdamW itself updates are held in float32, as DeepSpeed's masters are: in bfloat16 an
    update smaller than 1/256 of a weight is lost, and float16 gradients cannot be unscaled.
    """
    tuning = _tuning(spec)
    dtype = getattr(torch, spec.slice["model"]["dtype"])
    if not isinstance(tuning, Lora) and not spec.slice["deepspeed"]:
        dtype = torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    model.config.use_cache = False
    if spec.gradient_checkpointing and isinstance(tuning, Lora):
        model.enable_input_require_grads()
    if not isinstance(tuning, Lora):
        return model
    set_seed(seed)
    return _with_adapter(model, tuning)


def check_targets(spec: Spec) -> None:
    """Compare the recipe's target modules with the model, before anything is loaded or sharded.

    Raises:
        BuildError: One matches nothing in the model.
    """
    tuning = _tuning(spec)
    if isinstance(tuning, Lora):
        check_target_modules(Path(spec.model), tuning.target_modules)


def _tuning(spec: Spec) -> Any:
    return TypeAdapter(Tuning).validate_python(spec.slice["tuning"])


def _with_adapter(model: Any, tuning: Lora) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = tuning.target_modules
    config = LoraConfig(
        r=tuning.r,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=tuning.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def base_folder(spec: Spec, seed: int) -> Path:
    """The folder to load weights from; for a model from scratch rank 0 draws them first.

    Call it before any process group or DeepSpeed configuration exists: then ZeRO-3 shards these weights
    as it would those of any other model, and every stage starts from the same ones. The other ranks wait
    for rank 0 when the group forms.
    """
    folder, drawn = Path(spec.model), Path(spec.folder).parent / "scratch"
    if list(folder.glob("*.safetensors")):
        return folder
    if int(os.environ.get("RANK", "0")) == 0 and not drawn.exists():
        temporary = drawn.with_name("scratch.tmp")
        remove_tree(temporary)
        set_seed(seed)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(temporary)
        temporary.rename(drawn)
    return drawn


def linear_modules(folder: Path) -> dict[str, str]:
    """Full name -> last part of every linear module of a model, read from its config on the meta device."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {
        name: name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


def check_target_modules(folder: Path, targets: str | Sequence[str]) -> None:
    """Make sure that each target names a linear module of the model in `folder`.

    Raises:
        BuildError: One does not; the message lists what there is.
    """
    if isinstance(targets, str):
        return
    last = set(linear_modules(folder).values())
    missing = [target for target in targets if target.rpartition(".")[2] not in last]
    if missing:
        raise BuildError(
            f"tuning.target_modules: {', '.join(missing)} match nothing in the model; "
            f"its linear modules are {', '.join(sorted(last)[:LISTED])}"
        )


def save_model(spec: Spec, trainer: Any) -> None:
    """Write the trained weights to `spec.out`, without what differs between two equal runs."""
    out, temporary = Path(spec.out), Path(spec.folder) / "final"
    first = int(os.environ.get("RANK", "0")) == 0
    if isinstance(_tuning(spec), Lora):
        tensors = _trained(spec, trainer.model)  # a collective
        if first:
            _save_adapter(trainer.model, tensors, out)
        return
    if spec.slice["deepspeed"] and spec.slice["deepspeed"]["zero_stage"] == 3:
        trainer.save_model(str(temporary))  # a collective: ZeRO-3 gathers here
    elif first:
        # Every rank has whole weights. Not trainer.save_model: its copy under DeepSpeed unties lm_head.
        model = trainer.model.to(getattr(torch, spec.slice["model"]["dtype"]))  # float32: see load_model
        model.save_pretrained(temporary)
    if first:
        _save_whole(temporary, Path(spec.model), out)
        remove_tree(temporary)


def _trained(spec: Spec, model: Any) -> dict[str, torch.Tensor]:
    """The adapter's weights in float32, whatever the engine: DeepSpeed's masters where it keeps its own."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        master = None
        if spec.slice["deepspeed"]:
            from deepspeed.utils import safe_get_full_fp32_param

            master = safe_get_full_fp32_param(parameter)
        tensors[name] = (parameter.detach() if master is None else master).float().cpu().clone()
    return tensors


def _save_adapter(model: Any, tensors: dict[str, torch.Tensor], out: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    named = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
    save_file(dict(sorted(named.items())), out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    config = json.loads(json.dumps(config, default=sorted))  # sets
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = None  # a path of this machine says nothing elsewhere
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _save_whole(source: Path, base: Path, out: Path) -> None:
    """A whole model: weights and config as trained, tokenizer as the base's."""
    for name, path in tokenizer_files(base).items():
        shutil.copyfile(path, out / name)
    for path in [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")]:
        shutil.copyfile(path, out / path.name)
    config = json.loads((source / "config.json").read_text())
    config["use_cache"] = True
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
