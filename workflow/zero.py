"""ZeRO stage -> the one DeepSpeed configuration; every number in it is derived, none is typed twice.

Keys: https://www.deepspeed.ai/docs/config-json/. Optimizer and scheduler are the Trainer's own, so there is
no block for either; batch sizes come from the recipe's batch size and how the job runs. A user's own file
may say the same or `auto` where the recipe decides, and anything where it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflow.errors import BuildError
from workflow.recipe.training import DeepSpeed
from workflow.training.spec import Batching

BUCKET = 10_000_000
"""Elements that are reduced or gathered at a time: 20 MB in bf16, enough for a full NCCL message. DeepSpeed's
own 5e8 is set aside anew in each step, which costs a small model more than its training does."""

DECIDED = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "execution.micro_batch",
    "gradient_accumulation_steps": "training.batch_size / (processes x micro_batch)",
    "gradient_clipping": "training.max_grad_norm",
    "bf16.enabled": "model.dtype",
    "fp16.enabled": "model.dtype",
    "zero_optimization.stage": "deepspeed.zero_stage",
    "zero_optimization.offload_optimizer.device": "deepspeed.offload_optimizer",
    "zero_optimization.offload_param.device": "deepspeed.offload_parameters",
    "zero_optimization.offload_optimizer.nvme_path": "execution.nvme_path",
    "zero_optimization.offload_param.nvme_path": "execution.nvme_path",
}
"""Key of DeepSpeed -> what of the recipe decides it."""

OPTIMIZER = {
    "lr": "learning_rate", "weight_decay": "optimizer.weight_decay", "eps": "optimizer.epsilon",
    "betas": "optimizer.beta1 and beta2",
}  # fmt: skip


def deepspeed_config(
    section: DeepSpeed, batches: Batching, dtype: str, max_grad_norm: float, nvme_path: str | None = None
) -> dict[str, Any]:
    """The configuration of one engine.

    Args:
        section: Stage and offloading.
        batches: Processes, rows per process and forward pass, forward passes per optimizer step.
        dtype: bfloat16, float16 or float32.
        max_grad_norm: L2 norm that gradients are clipped to; 0 for no clipping.
        nvme_path: Folder for what is offloaded to disk.
    """
    return {
        "train_batch_size": batches.micro_batch * batches.accumulation * batches.processes,
        "train_micro_batch_size_per_gpu": batches.micro_batch,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "zero_optimization": _zero(section, nvme_path),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # offloaded or not, the optimizer is the recipe's
        "steps_per_print": 10**9,
    }


def _zero(section: DeepSpeed, nvme_path: str | None) -> dict[str, Any]:
    stage = section.zero_stage
    config: dict[str, Any] = {"stage": stage}
    if stage in (1, 2):
        config |= {"allgather_bucket_size": BUCKET, "reduce_bucket_size": BUCKET}
        config |= {"overlap_comm": stage == 2, "contiguous_gradients": True}
    if stage == 3:
        config |= {"reduce_bucket_size": BUCKET, "stage3_prefetch_bucket_size": BUCKET}
        config |= {"overlap_comm": True, "contiguous_gradients": True}
        config |= {"stage3_gather_16bit_weights_on_model_save": True}
    places = {"offload_optimizer": section.offload_optimizer, "offload_param": section.offload_parameters}
    for key, device in places.items():
        if device:
            config[key] = {"device": device, "pin_memory": True}
            config[key] |= {"nvme_path": nvme_path} if device == "nvme" else {}
    return config


def with_users_own(config: dict[str, Any], own: Any, training: dict[str, Any]) -> dict[str, Any]:
    """Our configuration with what a user's own file says besides.

    Args:
        config: Ours.
        own: Theirs, as read from JSON; its blocks `optimizer` and `scheduler` are left out once compared.
        training: The recipe's section `training`, defaults filled in.

    Raises:
        BuildError: It is no mapping or contradicts the recipe; every contradiction is named.
    """
    if not isinstance(own, dict):
        raise BuildError(
            "deepspeed.config: not a JSON object; see https://www.deepspeed.ai/docs/config-json/"
        )
    ours = dict(_flat(config))
    wrong = [
        _contradiction(key, value, ours.get(key), DECIDED[key])
        for key, value in _flat(own)
        if key in DECIDED and value != "auto" and not _same(value, ours.get(key))
    ]
    wrong += [*_optimizer(own.get("optimizer"), training), *_scheduler(own.get("scheduler"), training)]
    if wrong:
        raise BuildError("deepspeed.config contradicts the recipe: " + "; ".join(wrong))
    besides = {key: value for key, value in own.items() if key not in ("optimizer", "scheduler")}
    return _over(besides, config)


def check_users_own(slice: dict[str, Any], execution: dict[str, Any], own: Any) -> None:
    """Compare a user's file with the recipe as far as it goes before the number of processes is known.

    Args:
        slice: What decides the adapter.
        execution: The recipe's section `execution`.
        own: The file, as read from JSON.

    Raises:
        BuildError: It contradicts the recipe.
    """
    training = slice["training"]
    config = deepspeed_config(
        DeepSpeed.model_validate(slice["deepspeed"]), Batching(1, training["batch_size"], 1),
        slice["model"]["dtype"], training["max_grad_norm"], execution.get("nvme_path"),
    )  # fmt: skip
    later = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    known = {key: value for key, value in own.items() if key not in later} if isinstance(own, dict) else own
    with_users_own(config, known, training)


def _contradiction(key: str, value: Any, ours: Any, decides: str) -> str:
    return f"{key} is {value}, {decides} says {'none' if ours is None else ours}"


def _same(value: Any, ours: Any) -> bool:
    """Equal as numbers; no offloading is written `none` or left out."""
    return bool(value == ours) or (ours is None and value in (None, "none", False))


def _optimizer(block: Any, training: dict[str, Any]) -> Iterator[str]:
    """Contradictions of the file's `optimizer` block: the Trainer's own optimizer is used."""
    if block is None:
        return
    chosen = training["optimizer"]
    if str(block.get("type")).lower() not in ("adam", "adamw") or not chosen["name"].startswith("adamw"):
        yield _contradiction("optimizer.type", block.get("type"), chosen["name"], "training.optimizer")
        return
    says = {
        "lr": training["learning_rate"], "weight_decay": chosen["weight_decay"],
        "eps": chosen["epsilon"], "betas": [chosen["beta1"], chosen["beta2"]],
    }  # fmt: skip
    for key, value in block.get("params", {}).items():
        if key in says and value != "auto" and value != says[key]:
            yield _contradiction(f"optimizer.params.{key}", value, says[key], f"training.{OPTIMIZER[key]}")


def _scheduler(block: Any, training: dict[str, Any]) -> Iterator[str]:
    """Contradictions of its `scheduler` block, which would silently replace the recipe's schedule."""
    for key, value in (block or {}).get("params", {}).items():
        if value != "auto":
            name = training["lr_scheduler"]["name"]
            yield _contradiction(f"scheduler.params.{key}", value, name, "training.lr_scheduler")


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _over(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Ours, with what they add or say otherwise; `auto` is ours where we say anything."""
    merged = dict(ours)
    for key, value in theirs.items():
        if isinstance(value, dict):
            merged[key] = _over(value, ours.get(key) or {})
        elif value != "auto" or key not in ours:
            merged[key] = value
    return merged


def smallest_stage(parameters: int, trained: int, processes: int, bytes_each: int, memory: int) -> int:
    """The lowest ZeRO stage whose weights, gradients and AdamW state leave 40 % of a GPU for activations.

    Rajbhandari et al. 2020, section 3: a trained weight costs its gradient (`bytes_each`), and 12 bytes of
    float32 weight, mean and variance.

    Args:
        parameters: All weights.
        trained: Those that are trained.
        processes: GPUs.
        bytes_each: Bytes of a weight as loaded.
        memory: Bytes of one GPU.
    """
    weights, gradients, state = bytes_each * parameters, bytes_each * trained, 12 * trained
    needs = [
        weights + gradients + state,
        weights + gradients + state / processes,
        weights + (gradients + state) / processes,
    ]
    return next((stage for stage, need in enumerate(needs) if need <= 0.6 * memory), 3)


def hint(stage: int, smallest: int) -> str | None:
    """A word about a stage that is higher than it need be; nothing is changed."""
    if stage < 3 or smallest == 3:
        return None
    return (
        f"hint: weights, gradients and optimizer state would fit these GPUs with deepspeed.zero_stage "
        f"{smallest}, which exchanges less than stage 3"
    )
