"""Tutorial 4 as one target, rehearsed with the real libraries: three settings, one page, no network."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from test_experiment import Page
from test_rehearsing import ALONE, folder
from workspace import command, environment

from workflow.verification import verify

pytestmark = pytest.mark.slow

NAME = "results/rehearsal/experiments/history-length"


def test_the_history_of_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder(tmp_path / "it")
    monkeypatch.chdir(place.root)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        command(f"{NAME}/report.html", "--cores", "2", "--set-threads", *ALONE),
        cwd=place.root, env=environment() | offline, capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    page = Page(Path(f"{NAME}/report.html").read_text())
    assert page.fetched == []
    assert "A rehearsal: it runs, and proves nothing of the question." in page.text
    for said in (
        "from 8 test items intervals come out too narrow",
        "Which factor of 1024 makes a difference",
        "each arm was trained once",
        "prompt.max_source_length how many tokens of a conversation the model sees 512 1024",
        "Training loss over tokens seen",
    ):
        assert said in page.text
    folders = {
        product: list(Path("store", product).glob("*/manifest.json")) for product in ("rows", "adapter")
    }
    assert len(folders["rows"]) == 2 and 1 <= len(folders["adapter"]) <= 2
    assert "whole back to its sources" in verify(place.store, Path(NAME))
    node = place.graph("rehearsal/experiments/history-length").node("experiment")
    receipt = place.store.built("experiment", node.address)
    assert receipt
    counts, metrics = receipt.manifest.counts, node.slice["metrics"]
    assert counts == {"arms": 3, "rows": 8, "figures": 2 * len(metrics)}  # greedy, and drawn
    found = json.loads((place.store.folder("experiment", receipt.key) / "experiment.json").read_text())
    assert [one["metric"] for one in found["compared"][::2]] == metrics
