"""Loading the model that is trained, and saving what was trained."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from workflow.checkpoint import same_weights
from workflow.errors import BuildError
from workflow.models import tokenizer_files
from workflow.recipe.tuning import Full, Pissa, Qlora
from workflow.store.files import remove_tree
from workflow.training.methods import initialise, peft_config, quantized, tuning_of
from workflow.training.spec import Spec
from workflow.training.targets import check_names, empty_model, is_tied, output_name


def load_model(spec: Spec, folder: Path, seed: int) -> Any:
    """The model of `folder` with its trainable weights in place.

    Weights that plain AdamW itself updates are held in float32, as DeepSpeed's masters are: in bfloat16 an
    update smaller than 1/256 of a weight is lost, and float16 gradients cannot be unscaled.
    """
    tuning = tuning_of(spec.slice)
    dtype = getattr(torch, spec.slice["model"]["dtype"])
    if isinstance(tuning, Full) and not spec.slice["deepspeed"]:
        dtype = torch.float32
    base: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    if isinstance(tuning, Qlora):
        base |= quantized(tuning.quantization, dtype, [output_name(empty_model(folder))])
    model = AutoModelForCausalLM.from_pretrained(folder, **base)
    model.config.use_cache = False
    if isinstance(tuning, Full):
        return model
    if spec.gradient_checkpointing:
        model.enable_input_require_grads()
    set_seed(seed)
    return _with_adapter(spec, model, tuning)


def check_tuning(spec: Spec) -> None:
    """Compare the names in the recipe with the model, before anything is loaded or sharded.

    Raises:
        BuildError: One matches nothing in the model.
    """
    check_names(tuning_of(spec.slice), Path(spec.model))


def _with_adapter(spec: Spec, model: Any, tuning: Any) -> Any:
    from peft import get_peft_model, get_peft_model_state_dict

    adapted = get_peft_model(model, peft_config(tuning, is_tied(model)))
    if not spec.slice["deepspeed"]:
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if isinstance(tuning, Pissa):
        fresh = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        adapted.drawn = {name: tensor.float().cpu().clone() for name, tensor in fresh.items()}
    if spec.start:
        adapted.started_from = initialise(adapted, Path(spec.start))
        if os.environ.get("RANK", "0") == "0":
            counts = ", ".join(f"{count} {name}" for name, count in adapted.started_from.items())
            with spec.progress.open("a") as file:
                file.write(f"adapter: tensors of the adapter it starts from: {counts}\n")
    return adapted


def has_weights(folder: Path) -> bool:
    """Whether a model folder has weights: one from scratch has none."""
    return any(folder.glob("*.safetensors"))


def base_folder(spec: Spec, seed: int) -> Path:
    """The folder to load weights from; for a model from scratch rank 0 draws them first.

    Call it before any process group or DeepSpeed configuration exists: then ZeRO-3 shards these weights
    as it would those of any other model, and every stage starts from the same ones. The other ranks wait
    for rank 0 when the group forms.
    """
    folder, drawn = Path(spec.model), Path(spec.folder).parent / "scratch"
    if has_weights(folder):
        return folder
    if int(os.environ.get("RANK", "0")) == 0 and not drawn.exists():
        temporary = drawn.with_name("scratch.tmp")
        remove_tree(temporary)
        set_seed(seed)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(temporary)
        temporary.rename(drawn)
    return drawn


def save_model(spec: Spec, trainer: Any) -> None:
    """Write the trained weights to `spec.out`, without what differs between two equal runs."""
    out, temporary = Path(spec.out), Path(spec.folder) / "final"
    first = int(os.environ.get("RANK", "0")) == 0
    if not isinstance(tuning_of(spec.slice), Full):
        tensors = _trained(spec, trainer.model)  # a collective
        if first:
            save_adapter(trainer.model, tensors, out)
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
        if has_weights(Path(spec.model)) and same_weights(Path(spec.model), out):
            raise BuildError(
                "the trained model is its base, byte by byte: updates were lost in rounding; train longer, "
                "or with a higher learning rate"
            )


def _trained(spec: Spec, model: Any) -> dict[str, torch.Tensor]:
    """The adapter's weights in float32, whatever the engine: DeepSpeed's masters where it keeps its own."""
    tensors = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):  # tied ones go by two names
        if not parameter.requires_grad:
            continue
        master = None
        if spec.slice["deepspeed"]:
            from deepspeed.utils import safe_get_full_fp32_param

            master = safe_get_full_fp32_param(parameter)
        tensors[name] = (parameter.detach() if master is None else master).float().cpu().clone()
    return tensors


def save_adapter(
    model: Any, tensors: dict[str, torch.Tensor] | None, out: Path, name: str = "default"
) -> None:
    """Write an adapter as PEFT reads it, without what differs between two equal runs.

    Args:
        model: A PeftModel.
        tensors: Its trained parameters by name; None: as the model holds them.
        out: Folder to write to.
        name: The adapter's name in the model.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config[name]
    named = get_peft_model_state_dict(
        model,
        state_dict=None if config.is_prompt_learning else tensors,
        adapter_name=name,
        save_embedding_layers=False,
    )
    written = json.loads(json.dumps(config.to_dict() | {"inference_mode": True}, default=sorted))  # sets
    if hasattr(model, "drawn"):
        named = _as_plain_lora(named, model.drawn, written)
    named = {key: tensor.float().cpu().contiguous() for key, tensor in sorted(named.items())}
    save_file(named, out / "adapter_model.safetensors", metadata={"format": "pt"})
    if isinstance(written.get("target_modules"), list):
        written["target_modules"] = sorted(written["target_modules"])
    written["base_model_name_or_path"] = None  # a path of this machine says nothing elsewhere
    (out / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _as_plain_lora(
    trained: dict[str, torch.Tensor], drawn: dict[str, torch.Tensor], config: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """PiSSA's factors as those of plain LoRA on the untouched base: B A - B0 A0, at twice the rank.

    As `subtract_mutated_init` in peft/tuners/lora/model.py; changes `config` to match.
    """
    for key in ("r", "lora_alpha"):
        config[key] *= 2
    for key in ("rank_pattern", "alpha_pattern"):
        config[key] = {pattern: 2 * value for pattern, value in config[key].items()}
    config["init_lora_weights"] = True
    plain = dict(trained)
    for name, tensor in trained.items():
        if ".lora_A." in name:
            plain[name] = torch.cat([tensor, drawn[name]], dim=0)
        elif ".lora_B." in name:
            plain[name] = torch.cat([tensor, -drawn[name]], dim=1)
    return plain


def _save_whole(source: Path, base: Path, out: Path) -> None:
    """A whole model: weights and config as trained, tokenizer as the base's."""
    for name, path in tokenizer_files(base).items():
        shutil.copyfile(path, out / name)
    for path in [*source.glob("*.safetensors"), *source.glob("*.safetensors.index.json")]:
        shutil.copyfile(path, out / path.name)
    config = json.loads((source / "config.json").read_text())
    config["use_cache"] = True
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
