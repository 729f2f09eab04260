"""The recipe's choices in the words of transformers' TrainingArguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainingArguments

from workflow.errors import BuildError
from workflow.recipe.optimisation import AdamW, Schedule, Stable
from workflow.recipe.training import Training
from workflow.training.spec import Spec

OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_fused": "adamw_torch_fused",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
}
"""Ours -> transformers' name; its `adamw_torch` is the implementation that kill and resume is proven with."""


def training_arguments(spec: Spec, training: Training, steps: int) -> TrainingArguments:
    """Arguments for so many optimizer steps; when to save and to evaluate is decided by a callback."""
    dtype = spec.slice["model"]["dtype"]
    cuda = torch.cuda.is_available()
    if cuda and training.tf32:
        torch.set_float32_matmul_precision("high")
    return TrainingArguments(
        output_dir=spec.folder,
        max_steps=steps,
        per_device_train_batch_size=spec.micro_batch,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=training.learning_rate,
        max_grad_norm=training.max_grad_norm,
        **scheduler(training.lr_scheduler, steps),
        **_optimizer(training),
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        gradient_checkpointing=spec.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if spec.gradient_checkpointing else None,
        logging_steps=training.log_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would show a mean of earlier losses instead of NaN
        save_strategy="no",
        seed=training.seed,
        use_cpu=not cuda,
        ddp_backend=None if cuda else "gloo",
        ddp_find_unused_parameters=False,
        deepspeed=spec.deepspeed,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=spec.report_to or "none",
    )


def scheduler(schedule: Schedule, steps: int) -> dict[str, Any]:
    """Name, warm-up and parameters of a learning rate's shape.

    Raises:
        BuildError: The peak would never be reached.
    """
    warmup = schedule.warmup_steps or math.ceil(schedule.warmup_ratio * steps)
    if schedule.warmup_steps >= steps:
        raise BuildError(
            f"training.lr_scheduler.warmup_steps {warmup}: the training has {steps} steps; use fewer"
        )
    own = schedule.model_dump(exclude={"name", "warmup_ratio", "warmup_steps"})
    name = schedule.name
    if isinstance(schedule, Stable):
        own["num_decay_steps"] = min(math.ceil(own.pop("decay_ratio") * steps), steps - warmup)
    if name == "constant" and warmup:
        return {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": warmup}
    return {"lr_scheduler_type": name, "warmup_steps": warmup, "lr_scheduler_kwargs": own or None}


def _optimizer(training: Training) -> dict[str, Any]:
    optimizer = training.optimizer
    chosen: dict[str, Any] = {"optim": OPTIMIZERS[optimizer.name], "weight_decay": optimizer.weight_decay}
    if isinstance(optimizer, AdamW):
        chosen |= {"adam_beta1": optimizer.beta1, "adam_beta2": optimizer.beta2}
        chosen["adam_epsilon"] = optimizer.epsilon
    return chosen
