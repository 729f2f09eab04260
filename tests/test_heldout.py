"""Loss on held-out rows: which rows, what is measured, which weights are kept, and when it stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_training import Forks
from tiny_training import LORA, files, job, losses, token_rows, write_inputs

from workflow.errors import BuildError
from workflow.recipe.optimisation import Validation
from workflow.training.checkpoints import best_of, newest_whole
from workflow.training.heldout import hold_out
from workflow.training.verdict import verdict

CALM = LORA | {"lora_dropout": 0.0}
HELD = {"rows": 5, "every_steps": 2, "keep": "best"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


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


# --- real trainings --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
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
