"""Recipe sections that say which model is trained and how."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from workflow.recipe.leaf import EXECUTION, SOURCE, Section, leaf

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$", re.ASCII)
COMMIT = re.compile(r"^[0-9a-f]{40}$")
UNPINNED = "unpinned"


class RecipeBase(Section):
    """A model made by another recipe: its merged checkpoint."""

    recipe: str = leaf(
        of=(SOURCE,),
        description="Name of the other recipe; `rehearsal/<recipe>` is its rehearsal.",
        pattern=r"^(rehearsal/)?[A-Za-z0-9][A-Za-z0-9._-]*$",
    )


class StandIn(Section):
    """Which model a tiny one with random weights stands in for."""

    family: str | None = leaf(
        None,
        of=("model", "tokenizer"),
        description="Family of the model, transformers' `model_type`, with a tokenizer of bytes.",
        min_length=1,
    )
    like: str | None = leaf(
        None,
        of=(SOURCE,),
        description="Folder with the model's own config.json and tokenizer, relative to the recipe.",
        min_length=1,
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> StandIn:
        if (self.family is None) == (self.like is None):
            raise ValueError("give either `family` or `like`")
        return self


class StandInBase(Section):
    """A tiny model with random weights, of the architecture of a large one: what rehearsals train."""

    stand_in: StandIn = Field(description="Which model it stands in for.")


class ScratchBase(Section):
    """A new model: architecture and tokenizer from a folder, weights drawn from `training.seed`."""

    scratch: str = leaf(
        of=(SOURCE,),
        description="Folder with config.json and the tokenizer's files, relative to the recipe.",
        min_length=1,
    )


class Model(Section):
    """The model that training starts from."""

    base: str | RecipeBase | ScratchBase | StandInBase = leaf(
        of=("model", "tokenizer"),
        description="Hub id (with `revision`), local folder (without), `{recipe: name}`, "
        "`{scratch: folder}` or `{stand_in: {family: name}}`.",
    )
    revision: str | None = leaf(
        None,
        of=("model", "tokenizer"),
        description="Commit of the hub id, 40 hex digits; `unpinned` until `tunemake lock` has run.",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = leaf(
        of=("adapter",), description="Type that the base weights are loaded in for training."
    )

    @model_validator(mode="after")
    def _revision_fits(self) -> Model:
        if self.revision is None:
            return self
        if not isinstance(self.base, str) or not HUB_ID.match(self.base):
            raise ValueError("revision belongs to a hub id such as Qwen/Qwen2-7B-Instruct")
        if self.revision != UNPINNED and not COMMIT.match(self.revision):
            raise ValueError("revision must be a commit (40 hex digits) or `unpinned`, never a branch")
        return self

    @property
    def is_hub(self) -> bool:
        """Whether the base is fetched from a model hub."""
        return self.revision is not None


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685), by PEFT."""

    method: Literal["lora"] = leaf(of=("adapter",), description="Tuning method.")
    r: int = leaf(of=("adapter",), description="Rank of the update matrices.", gt=0)
    lora_alpha: int = leaf(
        of=("adapter",), description="Scaling numerator: updates are scaled by lora_alpha / r.", gt=0
    )
    lora_dropout: float = leaf(
        0.0, of=("adapter",), description="Dropout probability on the adapter's input.", ge=0, lt=1
    )
    target_modules: Literal["all-linear"] | list[str] = leaf(
        "all-linear",
        of=("adapter",),
        description="Names of the linear modules to adapt (last part of the name), or `all-linear`.",
    )


class Full(Section):
    """Full fine-tuning: every weight is trained and the product is a whole model."""

    method: Literal["full"] = leaf(of=("adapter",), description="Tuning method.")


Tuning = Annotated[Lora | Full, Field(discriminator="method")]


class Training(Section):
    """The optimisation: what decides the trained weights."""

    epochs: int = leaf(of=("adapter",), description="Passes over the training rows.", gt=0)
    learning_rate: float = leaf(of=("adapter",), description="Peak learning rate.", gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = leaf(
        "linear", of=("adapter",), description="Shape of the learning rate after warm-up."
    )
    warmup_ratio: float = leaf(
        0.0, of=("adapter",), description="Share of all optimizer steps spent warming up.", ge=0, lt=1
    )
    batch_size: int = leaf(of=("adapter",), description="Rows per optimizer step, over all GPUs.", gt=0)
    weight_decay: float = leaf(0.0, of=("adapter",), description="AdamW weight decay.", ge=0)
    adam_beta1: float = leaf(0.9, of=("adapter",), description="AdamW beta 1.", ge=0, lt=1)
    adam_beta2: float = leaf(0.999, of=("adapter",), description="AdamW beta 2.", ge=0, lt=1)
    adam_epsilon: float = leaf(1e-8, of=("adapter",), description="AdamW epsilon.", gt=0)
    max_grad_norm: float = leaf(
        1.0, of=("adapter",), description="Gradients are clipped to this L2 norm; 0 switches it off.", ge=0
    )
    log_steps: int = leaf(
        10, of=("adapter",), description="Optimizer steps between two lines of the loss log.", gt=0
    )
    seed: int = leaf(
        of=("adapter",), description="Seed of row order, dropout and new weights.", ge=0, lt=2**32
    )


class DeepSpeed(Section):
    """The DeepSpeed engine (Rajbhandari et al. 2020, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = leaf(
        of=("adapter",),
        description="ZeRO stage: 0 replicates; 1 shards optimizer state, 2 also gradients, 3 also weights.",
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
    save_steps: int = leaf(100, of=(EXECUTION,), description="Optimizer steps between two checkpoints.", gt=0)
    keep_checkpoints: int = leaf(
        2, of=(EXECUTION,), description="Newest checkpoints kept while training.", gt=0
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
