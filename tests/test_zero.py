"""The DeepSpeed configuration that follows from a ZeRO stage."""

from __future__ import annotations

import pytest

from workflow.zero import deepspeed_config


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_has_the_same_batch_arithmetic(stage: int) -> None:
    config = deepspeed_config(stage, 2, 4, 8, "bfloat16", 0.5)
    assert config["zero_optimization"]["stage"] == stage
    assert config["train_batch_size"] == 64
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 4
    assert config["gradient_clipping"] == 0.5
    assert "optimizer" not in config
    assert "scheduler" not in config


@pytest.mark.parametrize(("dtype", "enabled"), [("bfloat16", "bf16"), ("float16", "fp16"), ("float32", None)])
def test_one_half_precision_at_most(dtype: str, enabled: str | None) -> None:
    config = deepspeed_config(2, 1, 1, 1, dtype, 1.0)
    assert [name for name in ("bf16", "fp16") if config[name]["enabled"]] == ([enabled] if enabled else [])


def test_only_stage_3_gathers_weights_on_save() -> None:
    gathers = "stage3_gather_16bit_weights_on_model_save"
    for stage in range(4):
        config = deepspeed_config(stage, 1, 1, 1, "float32", 1.0)["zero_optimization"]
        assert (gathers in config) == (stage == 3)


def test_buckets_belong_to_stages_that_shard() -> None:
    assert deepspeed_config(0, 1, 1, 1, "float32", 1.0)["zero_optimization"] == {"stage": 0}
    for stage in (1, 2, 3):
        assert deepspeed_config(stage, 1, 1, 1, "float32", 1.0)["zero_optimization"]["reduce_bucket_size"] > 0
