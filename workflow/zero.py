"""ZeRO stage -> the one DeepSpeed configuration; every number in it is derived, none is typed twice.

Keys: https://www.deepspeed.ai/docs/config-json/. Optimizer and scheduler are the Trainer's own, so there is
no block for either; batch sizes come from the recipe's batch size and how the job runs.
"""

from __future__ import annotations

from typing import Any

BUCKET = 10_000_000
"""Elements that are reduced or gathered at a time: 20 MB in bf16, enough for a full NCCL message. DeepSpeed's
own 5e8 is set aside anew in each step, which costs a small model more than its training does."""


def deepspeed_config(
    stage: int, micro_batch: int, accumulation: int, processes: int, dtype: str, max_grad_norm: float
) -> dict[str, Any]:
    """The configuration of one engine.

    Args:
        stage: ZeRO stage, 0 to 3.
        micro_batch: Rows per process and forward pass.
        accumulation: Forward passes per optimizer step.
        processes: Ranks; batch size is the product of these three.
        dtype: bfloat16, float16 or float32.
        max_grad_norm: L2 norm that gradients are clipped to; 0 for no clipping.
    """
    return {
        "train_batch_size": micro_batch * accumulation * processes,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
        "zero_optimization": _zero(stage),
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def _zero(stage: int) -> dict[str, Any]:
    config: dict[str, Any] = {"stage": stage}
    if stage in (1, 2):
        config |= {"allgather_bucket_size": BUCKET, "reduce_bucket_size": BUCKET}
        config |= {"overlap_comm": stage == 2, "contiguous_gradients": True}
    if stage == 3:
        config |= {"reduce_bucket_size": BUCKET, "stage3_prefetch_bucket_size": BUCKET}
        config |= {"overlap_comm": True, "contiguous_gradients": True}
        config |= {"stage3_gather_16bit_weights_on_model_save": True}
    return config
