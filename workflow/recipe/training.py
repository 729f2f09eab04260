"""Recipe sections that say how a model is trained and run."""

from __future__ import annotations

from typing import Literal

from workflow.recipe.leaf import EXECUTION, Section, leaf


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
