"""Optimizers and schedules: the recipe's names are the field's formulas."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from forked_training import Forks
from tiny_training import FULL, job, losses, write_inputs

from workflow.errors import BuildError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw"}, "adamw_fused": {"name": "adamw_fused"},
    "paged_adamw_8bit": {"name": "paged_adamw_8bit"}, "adafactor": {"name": "adafactor"},
    "decayed": {"name": "adamw", "weight_decay": 50.0},
}  # fmt: skip


def test_optimizers_are_the_ones_that_were_asked_for(
    tmp_path: Path, inputs: dict[str, Path], server: Forks
) -> None:
    """All learn; the fused one is AdamW, the 8-bit one nearly; each of the others goes its own way."""
    for name, optimizer in OPTIMIZERS.items():
        given: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 4, "batch_size": 26}
        server.train(job(tmp_path / name, inputs, tuning=FULL, optimizer=optimizer, **given))
    found = {name: losses(tmp_path / name)[-1]["loss"] for name in OPTIMIZERS}
    first = losses(tmp_path / "adamw")[0]["loss"]
    assert all(loss < first for loss in found.values())
    assert found["adamw_fused"] == pytest.approx(found["adamw"], rel=1e-5)
    assert found["paged_adamw_8bit"] == pytest.approx(found["adamw"], rel=1e-2)
    assert found["paged_adamw_8bit"] != found["adamw"]
    for name in ("adafactor", "decayed"):
        assert found[name] != pytest.approx(found["adamw"], rel=1e-5), name


STEPS, PEAK = 10, 1.0
SHAPES: dict[str, tuple[dict[str, Any], Any]] = {
    "linear": ({"warmup_steps": 2}, lambda t: 1 - (t - 2) / 8),
    "cosine": ({"warmup_ratio": 0.2}, lambda t: (1 + math.cos(math.pi * (t - 2) / 8)) / 2),
    "constant": ({"warmup_steps": 2}, lambda t: 1.0),
    "cosine_with_restarts": (
        {"warmup_steps": 2, "num_cycles": 2},
        lambda t: (1 + math.cos(math.pi * ((t - 2) / 4 % 1))) / 2,
    ),
    "cosine_with_min_lr": (
        {"warmup_steps": 2, "min_lr_rate": 0.1},
        lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * (t - 2) / 8)) / 2,
    ),
    "polynomial": ({"warmup_steps": 2, "power": 2}, lambda t: (1 - (t - 2) / 8) ** 2),
    "inverse_sqrt": ({"warmup_steps": 2, "timescale": 4}, lambda t: 1 / math.sqrt((t + 2) / 4)),
    "warmup_stable_decay": (
        {"warmup_steps": 2, "decay_ratio": 0.5, "min_lr_ratio": 0.2},
        lambda t: 1.0 if t < 5 else 0.2 + 0.8 * (1 + math.cos(math.pi * (t - 5) / 5)) / 2,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_learning_rates_follow_their_formula(name: str) -> None:
    import torch
    from transformers import get_scheduler

    from workflow.recipe.training import Training
    from workflow.training.arguments import scheduler

    given, formula = SHAPES[name]
    section = Training.model_validate({
        "max_steps": STEPS, "learning_rate": PEAK, "batch_size": 1, "seed": 1,
        "lr_scheduler": {"name": name, **given},
    })  # fmt: skip
    chosen = scheduler(section.lr_scheduler, STEPS)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = get_scheduler(
        chosen["lr_scheduler_type"],
        optimizer,
        chosen["warmup_steps"],
        STEPS,
        chosen.get("lr_scheduler_kwargs"),
    )
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    low = given.get("min_lr_ratio", 0.0)  # where its warm-up begins too
    assert rates[:2] == pytest.approx([low, (1 + low) / 2])
    assert rates[2:] == pytest.approx([formula(t) for t in range(2, STEPS)])
    with pytest.raises(BuildError, match="warmup_steps 9: the training has 5 steps"):
        scheduler(section.lr_scheduler.model_copy(update={"warmup_steps": 9}), 5)
