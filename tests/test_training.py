"""Real trainings of a tiny model: what each choice of the recipe does, killed and resumed, however run."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_training import SECRET, Forks, forks, newest, spec_of
from tiny_training import FULL, LORA, files, job, losses, token_rows, write_inputs

from workflow.errors import BuildError
from workflow.recipe.optimisation import Validation
from workflow.training.checkpoints import best_of, newest_whole
from workflow.training.heldout import hold_out
from workflow.training.verdict import verdict

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
server = pytest.fixture(scope="module")(forks)
CALM = LORA | {"lora_dropout": 0.0}
HELD = {"rows": 5, "every_steps": 2, "keep": "best"}
PACKS = {"length": 40}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def weights(root: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (path,) = (root / "out").glob("*.safetensors")
    return dict(load_file(path))


# --- batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [None, PACKS], ids=["padded", "packed"])
def test_eight_at_once_are_one_eight_times(
    tmp_path: Path, inputs: dict[str, Path], server: Forks, packing: Any
) -> None:
    """The loss is a mean over the trained tokens of the whole batch, whatever rows each pass holds."""
    ways = {
        "8x1": {"execution": {"micro_batch": 8}},
        "1x8": {"execution": {"micro_batch": 1}},
        "2 ranks, 4x1": {"processes": 2},
        "2 ranks, 1x4": {"processes": 2, "execution": {"micro_batch": 1}},
    }
    for name, way in ways.items():
        given = {"batch_size": 8, "learning_rate": 1e-3, "epochs": 2, "packing": packing}
        server.train(job(tmp_path / name, inputs, tuning=FULL, **way, **given))
    expected, wanted = losses(tmp_path / "8x1"), weights(tmp_path / "8x1")
    assert len(expected) == (3 if packing else 7)
    for name in ways:
        found = [line["loss"] for line in losses(tmp_path / name)]
        assert found == pytest.approx([line["loss"] for line in expected], rel=1e-5), name
        for key, tensor in weights(tmp_path / name).items():
            assert float((tensor - wanted[key]).abs().max()) < 2e-5, (name, key)


def test_packed_rows_train_as_rows(tmp_path: Path, inputs: dict[str, Path], server: Forks) -> None:
    """All rows in each batch, packed or not: the same steps to 1e-5."""
    given: dict[str, Any] = {"tuning": FULL, "learning_rate": 1e-3, "epochs": 4}
    server.train(job(tmp_path / "packed", inputs, packing=PACKS, batch_size=12, **given))
    server.train(job(tmp_path / "padded", inputs, batch_size=26, **given))
    facts = json.loads((tmp_path / "packed/out/training.json").read_text())
    assert (facts["sequences"], facts["rows"], facts["packed_share"]) == (12, 26, 0.9458)
    packed, padded = ([line["loss"] for line in losses(tmp_path / name)] for name in ("packed", "padded"))
    assert packed == pytest.approx(padded, rel=1e-5)
    assert packed[-1] < packed[0] - 0.05
    for key, tensor in weights(tmp_path / "padded").items():
        assert float((tensor - weights(tmp_path / "packed")[key]).abs().max()) < 2e-5, key


# --- kill and resume ------------------------------------------------------------------------------------

ENGINES = (None, 1, 2, 3)
CASE = tuple[int | None, bool, bool, bool, bool]
"""ZeRO stage, accumulation, dropout, packing, validation with the best weights kept."""


def pairwise() -> Iterator[CASE]:
    """Every value of each factor beside every value of each other one (an orthogonal array of 8)."""
    for number, flip in itertools.product(range(4), (False, True)):
        low, high = bool(number & 1), bool(number & 2)
        yield ENGINES[number], flip, flip ^ low, flip ^ high, flip ^ low ^ high


GRID = list(itertools.product(ENGINES, *[(False, True)] * 4))
FACTORS = ("stage", "accumulated", "dropout", "packed", "validated")


def test_pairs_are_all_there() -> None:
    cases = list(pairwise())
    for one, other in itertools.combinations(range(5), 2):
        expected = {(case[one], case[other]) for case in GRID}
        assert {(case[one], case[other]) for case in cases} == expected


@pytest.mark.parametrize(
    FACTORS,
    [
        pytest.param(*case, marks=[] if case in set(pairwise()) else pytest.mark.soak, id=str(i))
        for i, case in enumerate(GRID)
    ],
)
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, inputs: dict[str, Path], server: Forks,
    stage: int | None, accumulated: bool, dropout: bool, packed: bool, validated: bool,
) -> None:  # fmt: skip
    """Two ranks, killed behind a checkpoint that no line of the log is at, against a run left alone."""

    def new(name: str, save: int) -> Any:
        return job(
            tmp_path / name, inputs, processes=2, stage=stage, tuning=LORA if dropout else CALM,
            execution={"micro_batch": 1 if accumulated else None, "save_steps": save},
            packing=PACKS if packed else None, validation=HELD if validated else None,
            max_steps=9, log_steps=4,
        )  # fmt: skip

    server.train(new("alone", 100))
    server.train(new("killed", 3), kill_at=3)
    printed = newest(Path(spec_of(new("killed", 3)).folder))
    assert 3 <= printed < 9, "it was not killed while it trained"
    server.train(new("killed", 3))
    assert files(tmp_path / "killed") == files(tmp_path / "alone")
    assert [line["step"] for line in losses(tmp_path / "alone") if "loss" in line][-1] == 9


# --- validation -----------------------------------------------------------------------------------------


def test_held_out_rows_are_measured_and_the_best_weights_kept(
    tmp_path: Path, inputs: dict[str, Path], server: Forks
) -> None:
    """A learning rate that overshoots: the best step is not the last, and its weights are the product's."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    given: dict[str, Any] = {"tuning": CALM, "learning_rate": 0.1, "epochs": 4}
    server.train(job(tmp_path / "one", inputs, validation=HELD, **given))
    still = given | {"learning_rate": 1e-9}  # on two ranks: the base's own loss
    server.train(job(tmp_path / "two", inputs, validation=HELD, processes=2, stage=2, **still))
    facts = json.loads((tmp_path / "one/out/training.json").read_text())
    measured = {line["step"]: line["eval_loss"] for line in losses(tmp_path / "one") if "eval_loss" in line}
    assert list(measured) == [*range(2, 21, 2), 21]
    assert (facts["rows"], facts["validation_rows"], facts["steps"]) == (21, 5, 21)
    best = facts["weights_of_step"]
    assert best == min(measured, key=lambda step: measured[step]) < 21
    base = AutoModelForCausalLM.from_pretrained(inputs["model"])
    unmoved = [line["eval_loss"] for line in losses(tmp_path / "two") if "eval_loss" in line]
    assert unmoved == pytest.approx([by_hand(base)] * len(measured), rel=1e-5)
    model = PeftModel.from_pretrained(base, tmp_path / "one/out").eval()
    assert by_hand(model) == pytest.approx(measured[best], rel=1e-5)


def by_hand(model: Any) -> float:
    """Mean loss per trained token of the held-out rows."""
    import torch

    _, held = hold_out(token_rows(), Validation.model_validate(HELD))
    total = tokens = 0.0
    for row in held:
        ids, counted = torch.from_numpy(row.input_ids.astype(np.int64)), row.trained[1:] == 1
        logits = model(ids[None]).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits[counted], ids[1:][counted], reduction="sum")
        total, tokens = total + loss.item(), tokens + counted.sum()
    return total / tokens


def test_early_stopping_stops_and_a_kill_at_its_end_changes_nothing(
    tmp_path: Path, inputs: dict[str, Path], server: Forks
) -> None:
    stopping = HELD | {"early_stopping": {"patience": 2}}
    given: dict[str, Any] = {"tuning": CALM, "learning_rate": 0.1, "epochs": 9, "validation": stopping}
    server.train(job(tmp_path / "one", inputs, execution={"keep_checkpoints": 1}, **given))
    facts = json.loads((tmp_path / "one/out/training.json").read_text())
    measured = [(x["step"], x["eval_loss"]) for x in losses(tmp_path / "one") if "eval_loss" in x]
    assert facts["steps"] == measured[-1][0] < 40
    assert facts["weights_of_step"] == measured[-3][0]
    assert losses(tmp_path / "one")[-1]["step"] == facts["steps"]
    folder = tmp_path / "one/work/world-1x4"
    kept = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    assert kept == [facts["weights_of_step"], facts["steps"]]  # rotation leaves the best one
    before = files(tmp_path / "one")
    for path in (tmp_path / "one/out").iterdir():
        path.unlink()
    server.train(job(tmp_path / "one", inputs, execution={"keep_checkpoints": 1}, **given))
    assert files(tmp_path / "one") == before


def test_a_checkpoint_whose_best_is_damaged_is_not_gone_on_from(
    tmp_path: Path, inputs: dict[str, Path], server: Forks
) -> None:
    given = job(tmp_path, inputs, tuning=CALM, learning_rate=0.1, epochs=4, validation=HELD)
    server.train(given)
    facts = json.loads((tmp_path / "out/training.json").read_text())
    folder = tmp_path / "work/world-1x4"
    best = folder / f"checkpoint-{facts['weights_of_step']}"
    needs = best_of(Validation.model_validate(HELD), folder)
    assert newest_whole(folder, needs) == folder / "checkpoint-21"
    (best / "adapter_model.safetensors").write_bytes(b"damaged")
    assert newest_whole(folder, needs) is None


# --- optimizers, schedules, engines ---------------------------------------------------------------------

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


def test_a_file_of_ones_own_reaches_the_engine(
    tmp_path: Path, inputs: dict[str, Path], server: Forks
) -> None:
    given = job(tmp_path, inputs, stage=2, execution={"save_epochs": 1}, epochs=3)
    own = tmp_path / "ds.json"
    own.write_text('{"zero_optimization": {"stage": 2, "reduce_bucket_size": 12345}}')
    given.sources["deepspeed"] = own
    printed = server.train(given)
    assert "deepspeed engine: zero stage 2" in printed
    assert spec_of(given).deepspeed["zero_optimization"]["reduce_bucket_size"] == 12345  # type: ignore[index]
    assert newest(tmp_path / "work/world-1x4") == 20
    assert (tmp_path / "work/world-1x4/checkpoint-13").exists()  # the end of the second epoch
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(everything) > 20
    assert not [path for path in everything if SECRET.encode() in path.read_bytes()]
    own.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(BuildError, match="stage is 3, deepspeed.zero_stage says 2"):
        spec_of(given)


# --- what needs no training -----------------------------------------------------------------------------


def test_rows_are_held_out_by_their_ids() -> None:
    rows, section = token_rows(200), Validation.model_validate(HELD | {"rows": 20})
    kept, held = hold_out(rows, section)
    assert (len(kept), len(held)) == (180, 20)
    more, share = token_rows(400), Validation(share=0.1, every_steps=1, keep="last")
    _, few = hold_out(rows, share)
    _, many = hold_out(more, share)
    assert {row.id for row in few} == {row.id for row in many if row.id <= rows[-1].id}
    assert 10 < len(few) < 30
    with pytest.raises(BuildError, match="holds out 200 of 200 rows"):
        hold_out(rows, Validation(rows=200, every_steps=1, keep="last"))


def test_the_verdict_is_about_improvement() -> None:
    section = Validation.model_validate(HELD | {"early_stopping": {"patience": 2, "min_delta": 0.1}})
    assert verdict([], section).best is None
    assert verdict([(2, 1.0), (4, 0.95)], section) == verdict([(2, 1.0), (4, 0.95)], section)
    assert verdict([(2, 1.0), (4, 0.95)], section).best == 4
    assert not verdict([(2, 1.0), (4, 0.95)], section).stop
    assert verdict([(2, 1.0), (4, 0.95), (6, 0.93)], section).stop
    assert not verdict([(2, 1.0), (4, 0.95), (6, 0.8)], section).stop
    assert verdict([(2, 1.0), (4, 1.0)], section).best == 2
