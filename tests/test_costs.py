"""What a build will take, from the records of earlier runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workflow import devices
from workflow.costs import Cost, cost_in, total


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            {"seconds": 6720, "gpus": 1, "device": "NVIDIA H200", "threads": 8},
            "last time 1 h 52 min on 1 x H200",
        ),
        ({"seconds": 59.6, "gpus": 4}, "last time 1 min 00 s on 4 x GPU"),
        ({"seconds": 0.04, "threads": 1}, "last time 0.0 s on 1 core"),
        ({"seconds": 12, "gpus": 0, "device": "cpu", "threads": 2}, "last time 12 s on 2 cores"),
    ],
)
def test_a_record_in_words(tmp_path: Path, record: dict[str, Any], text: str) -> None:
    path = tmp_path / "x.run.json"
    path.write_text(json.dumps(record))
    assert str(cost_in(path)) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": null}', '{"seconds": 1, "gpus": "many"}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.run.json"
    path.write_text(text)
    assert cost_in(path) is None
    assert cost_in(tmp_path / "missing") is None


def test_totals() -> None:
    hour, minute = Cost(3600, "1 x H200"), Cost(60, "2 cores")
    assert total([hour, minute]) == "about 1 h 01 min"
    assert total([hour, None]) == "about 1 h 00 min and 1 of unknown length"
    assert total([None, None]) == "nobody knows yet how long it takes"


def test_the_driver_names_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_DRIVER", tmp_path)
    assert devices.gpu_name() == "GPU"
    path = tmp_path / "0000:19:00.0" / "information"
    path.parent.mkdir()
    path.write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 72\nGPU UUID: \t GPU-0\n")
    assert devices.gpu_name() == "NVIDIA H200"
