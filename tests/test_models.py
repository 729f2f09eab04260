"""Model folders: complete, without pickles, without code; and their products."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.models import model_files, tokenizer_files
from workflow.products import model
from workflow.store.address import sha256_of
from workflow.store.build import Resources, build, verify
from workflow.store.records import Plan
from workflow.store.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (path / name).write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "modeling_x.py").write_text("raise SystemExit")
    (path / "optimizer.pt").write_bytes(b"pickle")
    return path


def test_files(folder: Path) -> None:
    small = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert list(tokenizer_files(folder)) == small
    assert sorted(model_files(folder)) == sorted([*small, "model.safetensors"])
    (folder / "model.safetensors").unlink()
    assert list(model_files(folder, scratch=True)) == small


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (["config.json"], "no config.json, this is not a model folder"),
        (["tokenizer.json"], "no tokenizer"),
        (["model.safetensors"], r"its weights are pickles \(optimizer.pt\).*save the model as safetensors"),
        (["model.safetensors", "optimizer.pt"], "it has no weights; save the model as safetensors"),
    ],
)
def test_incomplete_folders(folder: Path, absent: list[str], message: str) -> None:
    for name in absent:
        (folder / name).unlink()
    with pytest.raises(BuildError, match=message):
        model_files(folder)


def test_no_folder_and_scratch_with_weights(folder: Path) -> None:
    with pytest.raises(BuildError, match="no such model folder; for a hub id add model.revision"):
        model_files(folder / "absent")
    with pytest.raises(BuildError, match=r"must have no weights, but there is model.safetensors"):
        model_files(folder, scratch=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "value", [{"auto_map": {}}, {"trust_remote_code": True}, {"a": [{"b": {"custom_pipelines": 1}}]}]
)
def test_remote_code(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))
    for check in (tokenizer_files, model_files):
        with pytest.raises(
            BuildError, match=rf"{name}: .* asks for code of the model's own, which is never run"
        ):
            check(folder)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_damaged_config(folder: Path, body: bytes) -> None:
    (folder / "config.json").write_bytes(body)
    with pytest.raises(BuildError, match="config.json: not JSON"):
        tokenizer_files(folder)


def test_a_weight_shard_that_is_missing(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert index.name in model_files(folder)
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "../other.safetensors"}}))
    with pytest.raises(BuildError, match=r"names ../other.safetensors, which is missing"):
        model_files(folder)


def test_the_product(folder: Path, tmp_path: Path) -> None:
    store, files = Store(tmp_path / "store"), model_files(folder)
    digests = {name: sha256_of(path) for name, path in files.items()}
    plan = Plan(product="model", version=1, slice={"scratch": False}, inputs={}, sources=digests)
    store.write_plan(plan.product, plan.address, plan.model_dump(mode="json"))
    where = {"sources": {name: str(path) for name, path in files.items()}, "execution": {}}
    store.write_where("model", plan.address, where)
    receipt = build(store, "model", plan.address, model.make, Resources())
    assert {n: r.sha256 for n, r in receipt.manifest.files.items()} == digests
    made = store.folder("model", receipt.key)
    assert (made / "config.json").is_symlink()
    verify(made)
    assert receipt.manifest.counts["bytes"] == sum(path.stat().st_size for path in files.values())
    assert (folder / "model.safetensors").stat().st_mode & 0o200  # what is the user's stays as it is
    (folder / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(BuildError, match=r"model.safetensors: damaged"):
        verify(made)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BuildError, match=r"model.safetensors: cannot be read"):
        verify(made)
