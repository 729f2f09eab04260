"""Real trainings of a tiny model: what each choice of the recipe does, killed and resumed, however run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_training import SECRET, Forks, newest, spec_of
from tiny_training import FULL, LORA, files, job, losses, write_inputs

from workflow.errors import BuildError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
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


def test_offloaded_state_is_the_same_training(tmp_path: Path, inputs: dict[str, Path], server: Forks) -> None:
    places = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    server.train(job(tmp_path / "there", inputs, stage=3, processes=2))
    server.train(job(tmp_path / "away", inputs, stage=3, processes=2, offload=places))
    name = "adapter_model.safetensors"  # the norm of gradients is summed in another order
    assert files(tmp_path / "away")[name] == files(tmp_path / "there")[name]


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
