"""The DeepSpeed configuration that follows from a ZeRO stage."""

from __future__ import annotations

from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.recipe.training import DeepSpeed
from workflow.training.spec import Batching
from workflow.zero import deepspeed_config, hint, smallest_stage, with_users_own


def config(stage: int, dtype: str = "float32", **more: Any) -> Any:
    section = DeepSpeed.model_validate({"zero_stage": stage} | more)
    return deepspeed_config(section, Batching(8, 2, 4), dtype, 0.5, "/fast")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_has_the_same_batch_arithmetic(stage: int) -> None:
    found = config(stage)
    assert found["zero_optimization"]["stage"] == stage
    assert found["train_batch_size"] == 64
    assert found["train_micro_batch_size_per_gpu"] == 2
    assert found["gradient_accumulation_steps"] == 4
    assert found["gradient_clipping"] == 0.5
    assert "optimizer" not in found
    assert "scheduler" not in found


@pytest.mark.parametrize(("dtype", "enabled"), [("bfloat16", "bf16"), ("float16", "fp16"), ("float32", None)])
def test_one_half_precision_at_most(dtype: str, enabled: str | None) -> None:
    found = config(2, dtype)
    assert [name for name in ("bf16", "fp16") if found[name]["enabled"]] == ([enabled] if enabled else [])


def test_only_stage_3_gathers_weights_on_save() -> None:
    gathers = "stage3_gather_16bit_weights_on_model_save"
    for stage in range(4):
        assert (gathers in config(stage)["zero_optimization"]) == (stage == 3)


def test_buckets_belong_to_stages_that_shard() -> None:
    assert config(0)["zero_optimization"] == {"stage": 0}
    for stage in (1, 2, 3):
        assert config(stage)["zero_optimization"]["reduce_bucket_size"] > 0


# --- offloading and a user's own file ------------------------------------------------------------------


def test_what_is_offloaded_has_a_place() -> None:
    zero = config(3, offload_optimizer="nvme", offload_parameters="cpu")["zero_optimization"]
    assert zero["offload_optimizer"] == {"device": "nvme", "pin_memory": True, "nvme_path": "/fast"}
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}


def training(**more: Any) -> dict[str, Any]:
    from tiny_training import settings

    return settings(learning_rate=1e-4, **more)


def test_a_file_may_say_the_same_or_leave_it_open_and_add_what_the_recipe_does_not_decide() -> None:
    """Qwen's own ds_config_zero2.json: everything the recipe decides is `auto`."""
    own = {
        "train_batch_size": "auto",
        "gradient_clipping": 0.5,
        "bf16": {"enabled": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": [0.9, 0.999]}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}},
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "none"}, "reduce_bucket_size": 7},
        "wall_clock_breakdown": True,
    }
    merged = with_users_own(config(2), own, training())
    assert merged["train_batch_size"] == 64
    assert merged["zero_optimization"]["reduce_bucket_size"] == 7
    assert merged["wall_clock_breakdown"] is True
    assert not {"optimizer", "scheduler"} & merged.keys()


@pytest.mark.parametrize(
    ("own", "line"),
    [
        ({"train_batch_size": 32}, "train_batch_size is 32, training.batch_size says 64"),
        (
            {"zero_optimization": {"stage": 3}},
            "zero_optimization.stage is 3, deepspeed.zero_stage says 2",
        ),
        ({"fp16": {"enabled": True}}, "fp16.enabled is True, model.dtype says False"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            "zero_optimization.offload_optimizer.device is cpu, deepspeed.offload_optimizer says none",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": 1e-5}}},
            "optimizer.params.lr is 1e-05, training.learning_rate says 0.0001",
        ),
        ({"optimizer": {"type": "Lamb"}}, "optimizer.type is Lamb, training.optimizer says adamw"),
        (
            {"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 1e-5}}},
            "scheduler.params.warmup_max_lr is 1e-05, training.lr_scheduler says linear",
        ),
    ],
)
def test_each_contradiction_names_key_value_and_recipe(own: dict[str, Any], line: str) -> None:
    with pytest.raises(BuildError) as caught:
        with_users_own(config(2), own, training())
    assert str(caught.value) == f"deepspeed.config contradicts the recipe: {line}"


def test_the_smallest_stage_that_fits() -> None:
    """7.6 billion bf16 weights, fully trained: 122 GB in all; with LoRA little more than the weights."""
    full, lora, gpu = (7_600_000_000, 7_600_000_000), (7_600_000_000, 20_000_000), 80_000_000_000
    assert smallest_stage(*full, 8, 2, gpu) == 1  # 15 + 15 + 11
    assert smallest_stage(*full, 4, 2, gpu) == 2  # 15 + 27
    assert smallest_stage(*full, 2, 2, gpu) == 3
    assert smallest_stage(*lora, 8, 2, gpu) == 0
    assert hint(3, 2) == (
        "hint: weights, gradients and optimizer state would fit these GPUs with deepspeed.zero_stage 2, "
        "which exchanges less than stage 3"
    )
    assert hint(3, 3) is None
    assert hint(2, 0) is None
