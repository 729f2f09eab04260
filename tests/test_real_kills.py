"""kill -9 at random moments of real trainings and of real vLLM: the same command gives identical bytes.

Each case is a chain: killed, started again, killed again, until there were enough kills; then it may
finish. A chain that finishes earlier is compared, and another is begun.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Moments
from tiny_predictions import SAMPLING, shards, some_prompts, tiny_model
from tiny_store import Place
from tiny_training import LORA, check_adapter, engine, settings, write_inputs

ENGINES = [pytest.param(None, 1, id="plain"), pytest.param(2, 2, id="zero2"), pytest.param(3, 2, id="zero3")]
KILLS = [
    pytest.param(3, marks=pytest.mark.slow, id="3"),
    pytest.param(20, marks=pytest.mark.soak, id="20"),
]
SEED = 11


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("answering")
    return {"shards": shards(root / "shards", some_prompts(400)), "model": tiny_model(root / "model")}


def place(
    root: Path, product: str, inputs: dict[str, Path], slice: dict[str, Any], execution: dict[str, Any]
) -> Place:
    root.mkdir(exist_ok=True)
    given = {role: (role, inputs[role]) for role in ("shards", "model")}
    return Place(root, product, slice, given, execution)


def step(of: Place) -> int:
    """The newest sealed checkpoint."""
    sealed = of.store.work("x").parent.glob("*/world-*/checkpoint-*/tunemake.json")
    return max((int(path.parent.name.rpartition("-")[2]) for path in sealed), default=0)


def lines(of: Place) -> int:
    """Draws on disk."""
    return sum(path.read_bytes().count(b"\n") for path in of.store.pieces.glob("predictions/*/*.jsonl"))


def killed(
    new: Callable[[str], Place], progress: Callable[[Place], int], kills: int, most: int
) -> tuple[dict[str, bytes], list[str]]:
    """Kill so many times.

    Returns:
        The files of an undisturbed run, which the killed ones had too, and what each start printed.
    """
    reference, began = new("reference"), time.monotonic()
    family = reference.start()
    assert family.wait_until(lambda: progress(reference) > 0)
    moments = Moments(SEED, time.monotonic() - began, most)
    printed = [family.finish()]
    wanted, number, done = reference.made(), 0, 0
    chain = new("chain-0")
    while done < kills:
        family = chain.start()
        if moments.strike(family, lambda place=chain: progress(place)):  # type: ignore[misc]
            done += 1
            chain.folders()
        else:
            family.finish()
            assert chain.made() == wanted
            number += 1
            chain = new(f"chain-{number}")
        printed.append(family.log.read_text())
    printed.append(chain.start().finish())
    assert chain.made() == wanted
    return wanted, printed


@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize(("stage", "processes"), ENGINES)
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, training: dict[str, Path], stage: int | None, processes: int, kills: int
) -> None:
    """With dropout, a warm-up, and checkpoints between two lines of the log."""
    slice = {
        "tuning": LORA,
        "training": settings(
            epochs=2 + kills, log_steps=4, lr_scheduler={"name": "linear", "warmup_ratio": 0.2}
        ),
        "deepspeed": engine(stage),
        "model": {"dtype": "float32"},
    }
    execution = {"processes": processes, "save_steps": 3}

    def new(name: str) -> Place:
        return place(tmp_path / name, "adapter", training, slice, execution)

    files, printed = killed(new, step, kills, 6)
    assert sum("continues from checkpoint-" in text for text in printed) > kills / 4
    assert ("deepspeed engine: zero stage" in printed[0]) == (stage is not None)
    losses = [json.loads(line) for line in files["loss.jsonl"].splitlines()]
    last = -(-26 * (2 + kills) // 4)
    assert [line["step"] for line in losses] == sorted({1, *range(4, last + 1, 4), last})
    assert losses[-1]["epoch"] == 2 + kills
    (folder,) = Place.folders(new("reference"))
    check_adapter(folder, training["model"])


@pytest.mark.parametrize("kills", KILLS)
def test_killed_predictions_go_on_to_the_same_bytes(
    tmp_path: Path, answering: dict[str, Path], kills: int
) -> None:
    slice = {"sampling": SAMPLING | {"max_tokens": 60, "n": 2 + kills // 4}}

    def new(name: str) -> Place:
        return place(tmp_path / name, "predictions", answering, slice, {})

    _, printed = killed(new, lines, kills, 80)
    assert sum("draws were made before" in text for text in printed) > kills / 4
