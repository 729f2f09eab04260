"""A product that is there is found at once: no byte is read a second time, no GPU is waited for."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from test_store import Toy, folder_of, planned, run

from workflow import sources
from workflow.store.build import Job, Resources, build, intact
from workflow.store.locks import free
from workflow.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_hit_reads_nothing_twice_but_a_user_reads_every_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "RACY_NS", 0)
    plan = planned(store)
    receipt = run(store, plan, Toy())
    assert run(store, plan, Toy()) == receipt  # reads, and remembers

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path}: read")

    read = sources.sha256_of
    monkeypatch.setattr(sources, "sha256_of", refuse)
    assert run(store, plan, Toy()) == receipt
    with pytest.raises(AssertionError, match="read"):
        intact(store, receipt)
    monkeypatch.setattr(sources, "sha256_of", read)
    assert intact(store, receipt) == folder_of(store, receipt)


def test_a_product_that_is_there_waits_for_no_gpu(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    plan, seen = planned(store), []

    def make(job: Job) -> dict[str, Any]:
        with free(tmp_path / "tunemake-gpu-7.lock") as there:
            seen.append(there)
        return {}

    for _ in range(2):
        with free(tmp_path / "tunemake-gpu-7.lock") if seen else nullcontext():
            build(store, "toy", plan.address, make, Resources(gpus=1))
    assert seen == [False]
