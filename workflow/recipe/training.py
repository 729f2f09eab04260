"""Recipe sections that say how a model is trained and run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from workflow.recipe.leaf import EXECUTION, SOURCE, Section, leaf
from workflow.recipe.optimisation import (
    AdamW,
    Optimizer,
    Packing,
    Plain,
    Polynomial,
    Schedule,
    Validation,
)


class Training(Section):
    """The optimisation: what decides the trained weights."""

    epochs: int | None = leaf(None, of=("adapter",), description="Passes over the training rows.", gt=0)
    max_steps: int | None = leaf(
        None, of=("adapter",), description="Optimizer steps, instead of `epochs`.", gt=0
    )
    batch_size: int = leaf(
        of=("adapter",),
        description="Rows, or packed sequences, per optimizer step: over all GPUs and accumulated passes.",
        gt=0,
    )
    learning_rate: float = leaf(of=("adapter",), description="Peak learning rate.", gt=0)
    lr_scheduler: Schedule = Field(
        Plain(name="linear"), description="Shape of the learning rate, with its warm-up."
    )
    optimizer: Optimizer = Field(AdamW(name="adamw"), description="What turns gradients into updates.")
    max_grad_norm: float = leaf(
        1.0, of=("adapter",), description="Gradients are clipped to this L2 norm; 0 switches it off.", ge=0
    )
    packing: Packing | None = Field(None, description="Several rows in one sequence; left out: none.")
    group_by_length: bool = leaf(
        False,
        of=("adapter",),
        description="Put rows of like length into one batch: less padding, another order of rows.",
    )
    validation: Validation | None = Field(None, description="Loss on rows that are not trained on.")
    tf32: bool = leaf(
        False,
        of=("adapter",),
        description="Let GPUs multiply float32 matrices with 10-bit mantissas (TensorFloat-32).",
    )
    log_steps: int = leaf(
        10, of=("adapter",), description="Optimizer steps between two lines of the loss log.", gt=0
    )
    seed: int = leaf(
        of=("adapter",), description="Seed of row order, dropout and new weights.", ge=0, lt=2**32
    )

    @model_validator(mode="after")
    def _choices_fit(self) -> Training:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either `epochs` or `max_steps`: how long it trains")
        if self.packing and self.group_by_length:
            raise ValueError("packed sequences have one length: `group_by_length` excludes `packing`")
        schedule = self.lr_scheduler
        if isinstance(schedule, Polynomial) and schedule.lr_end >= self.learning_rate:
            raise ValueError(f"lr_scheduler.lr_end {schedule.lr_end} is not below the learning_rate")
        if self.max_steps and schedule.warmup_steps >= self.max_steps:
            raise ValueError(f"the warm-up of {schedule.warmup_steps} steps is longer than the training")
        return self


Device = Literal["cpu", "nvme"]


class DeepSpeed(Section):
    """The DeepSpeed engine (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = leaf(
        of=("adapter",),
        description="ZeRO stage: 0 replicates; 1 shards optimizer state, 2 also gradients, 3 also weights.",
    )
    offload_optimizer: Device | None = leaf(
        None,
        of=("adapter",),
        description="Keep optimizer state in main memory (`cpu`, stages 1 to 3) or on disk (`nvme`, stage 3) "
        "and update there.",
    )
    offload_parameters: Device | None = leaf(
        None, of=("adapter",), description="Keep weights in main memory or on disk; stage 3 only."
    )
    config: str | None = leaf(
        None,
        of=(SOURCE,),
        description="A DeepSpeed JSON file of your own, relative to the recipe: taken over where the recipe "
        "says nothing, refused where it contradicts the recipe.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _offload_fits_the_stage(self) -> DeepSpeed:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3: stage 0 shards nothing")
        if self.offload_optimizer == "nvme" and self.zero_stage != 3:
            raise ValueError("offload_optimizer nvme needs zero_stage 3; `cpu` works from stage 1 on")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters needs zero_stage 3: lower stages keep whole weights")
        return self

    @property
    def uses_disk(self) -> bool:
        """Whether anything is kept on disk while training."""
        return "nvme" in (self.offload_optimizer, self.offload_parameters)


Tracker = Literal[
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow",
    "neptune", "swanlab", "tensorboard", "trackio", "wandb",
]  # fmt: skip
"""What transformers can report to (transformers.integrations, 5.23)."""


class Asking(Section):
    """How an endpoint is asked (`sampling.engine.name: endpoint`)."""

    key_variable: str | None = leaf(
        None,
        of=(EXECUTION,),
        description="Environment variable that holds the key; left out: none is sent.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    )
    requests_at_once: int = leaf(8, of=(EXECUTION,), description="Requests in flight.", gt=0, le=256)
    timeout: float = leaf(
        300.0, of=(EXECUTION,), description="Seconds in which a request must be answered.", gt=0
    )
    give_up: float = leaf(
        1800.0,
        of=(EXECUTION,),
        description="Seconds after which a draw is given up, all attempts and waits together.",
        gt=0,
    )


class Execution(Section):
    """How it runs: recorded with every result, part of no address."""

    processes: int | None = leaf(
        None,
        of=(EXECUTION,),
        description="Training processes, one GPU each; default: every GPU of the machine, or 1 on CPU.",
        gt=0,
    )
    micro_batch: int | None = leaf(
        None,
        of=(EXECUTION,),
        description="Rows per process and forward pass; default: batch_size / processes.",
        gt=0,
    )
    gradient_checkpointing: bool = leaf(
        False,
        of=(EXECUTION,),
        description="Recompute activations in the backward pass: less memory, about 30 % slower.",
    )
    save_steps: int | None = leaf(
        None,
        of=(EXECUTION,),
        description="Optimizer steps between two checkpoints; default: 100.",
        gt=0,
    )
    save_epochs: int | None = leaf(
        None, of=(EXECUTION,), description="Epochs between two checkpoints, instead of `save_steps`.", gt=0
    )
    keep_checkpoints: int = leaf(
        2, of=(EXECUTION,), description="Newest checkpoints kept while training.", gt=0
    )
    report_to: list[Tracker] = leaf(
        [],
        of=(EXECUTION,),
        description="Trackers that are told the losses too; their keys come from the environment alone.",
    )
    nvme_path: str | None = leaf(
        None,
        of=(EXECUTION,),
        description="Folder on a fast disk for what DeepSpeed keeps in `nvme`.",
        min_length=1,
    )
    gpu_memory_utilization: float = leaf(
        0.9, of=(EXECUTION,), description="Share of GPU memory that vLLM may use.", gt=0, le=1
    )
    max_model_len: int | None = leaf(
        None,
        of=(EXECUTION,),
        description="vLLM context in tokens; default: what the longest prompt and max_tokens need.",
        gt=0,
    )
    prefix_caching: bool = leaf(
        True,
        of=(EXECUTION,),
        description="Whether vLLM computes what prompts begin with alike only once.",
    )
    endpoint: Asking = Field(default=Asking(), description="How an endpoint is asked.")

    @model_validator(mode="after")
    def _one_way_to_save(self) -> Execution:
        if self.save_steps and self.save_epochs:
            raise ValueError("save_steps and save_epochs both say when a checkpoint is written; give one")
        return self
