"""Each tuning method learns, merges into what it learned, and does so again byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_methods import METHODS, learn, method, write_task
from tiny_training import files

from workflow.products.merged import merge
from workflow.tokens import read_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]
PROMPTS = ("prompt_tuning", "p_tuning", "prefix_tuning")
RATES = {"full": 3e-3, "prompt_tuning": 0.1, "prefix_tuning": 0.1, "ia3": 0.05}
LEARNED = 0.25
"""Loss of a model that knows the permutation of 24 symbols; a guess among them costs 3.2."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_task(tmp_path_factory.mktemp("task"))


def loss_of(model: Any, inputs: dict[str, Path]) -> float:
    """Mean loss on the training rows."""
    import torch

    ids = torch.tensor([row.input_ids.tolist() for row in read_rows(inputs["shards"])])
    model.config.use_cache = False
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss)


def loaded(name: str, out: Path, inputs: dict[str, Path], tmp_path: Path) -> Any:
    """What others get: the merged model, or for trained prompts base and adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if name in PROMPTS:
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(inputs["model"]), out)
    if name == "full":
        return AutoModelForCausalLM.from_pretrained(out)
    (tmp_path / "merged").mkdir()
    quantization = METHODS[name].get("quantization")
    counts = merge(inputs["model"], out, tmp_path / "merged", quantization=quantization)
    assert 0 < counts["changed_tensors"] <= counts["merged_tensors"]
    assert counts.get("base") == ("dequantized nf4" if name == "qlora" else None)
    return AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


@pytest.mark.parametrize("name", ["lora", "dora", "qlora", "full"])
def test_learns_a_known_task(tmp_path: Path, inputs: dict[str, Path], name: str) -> None:
    seen = learn(tmp_path, inputs, method(name), epochs=15, learning_rate=RATES.get(name, 1e-2))
    assert seen[0] > 3.5
    assert seen[-1] < LEARNED
    assert loss_of(loaded(name, tmp_path / "out", inputs, tmp_path), inputs) < LEARNED


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"lora", "dora", "full"}))
def test_learns_the_same_twice_and_is_read_back(tmp_path: Path, inputs: dict[str, Path], name: str) -> None:
    rate = RATES.get(name, 1e-2)
    for run in ("one", "two"):
        seen = learn(tmp_path / run, inputs, method(name), epochs=4, learning_rate=rate)
    assert seen[-1] < seen[0] - 0.3
    assert files(tmp_path / "one") == files(tmp_path / "two")
    found = loss_of(loaded(name, tmp_path / "one/out", inputs, tmp_path), inputs)
    assert found == pytest.approx(seen[-1], abs=0.3)
    assert found < seen[0] - 0.3
    facts = json.loads((tmp_path / "one/out/training.json").read_text())
    assert 0 < facts["trained_parameters"] < facts["parameters"]
    assert facts["trained_share"] == pytest.approx(
        facts["trained_parameters"] / facts["parameters"], abs=1e-6
    )


def test_what_is_trained_beside_the_factors_is_merged(tmp_path: Path) -> None:
    """Tied embeddings stay one weight; biases and layers are those that were asked for."""
    from transformers import AutoModelForCausalLM

    inputs = write_task(tmp_path, tied=True)
    beside = {"modules_to_save": ["embed_tokens"], "bias": "lora_only", "layers_to_transform": [1]}
    tuning = method("lora", target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 3}, **beside)
    seen = learn(tmp_path, inputs, tuning, epochs=6, learning_rate=1e-2)
    (tmp_path / "merged").mkdir()
    counts = merge(inputs["model"], tmp_path / "out", tmp_path / "merged")
    assert (counts["merged_tensors"], counts["replaced_tensors"], counts["changed_tensors"]) == (2, 3, 5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert loss_of(model, inputs) == pytest.approx(seen[-1], abs=0.3)


def test_starts_where_another_adapter_ended(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """Also where alpha differs; and says what was loaded. What does not fit is an error."""
    before = learn(tmp_path / "first", inputs, method("lora"), epochs=8, learning_rate=1e-2)
    start = {**inputs, "start": tmp_path / "first/out"}
    for name, change in (("same", {}), ("alpha", {"lora_alpha": 24}), ("qlora", {}), ("rslora", {})):
        tuning = method(name if "lora" in name else "lora", **change)
        seen = learn(tmp_path / name, start, tuning, epochs=1, learning_rate=1e-5)
        assert seen[0] == pytest.approx(before[-1], abs=0.15), name
        facts = json.loads((tmp_path / name / "out/training.json").read_text())
        counts = [facts[f"initialised_{what}"] for what in ("loaded", "missing", "unexpected")]
        assert counts == [28, 0, 0]
    narrower = method("lora", target_modules=["q_proj"], modules_to_save=["lm_head"])
    learn(tmp_path / "more", start, narrower, epochs=1)
    facts = json.loads((tmp_path / "more/out/training.json").read_text())
    assert [facts[f"initialised_{what}"] for what in ("loaded", "missing", "unexpected")] == [4, 1, 24]
    progress = (tmp_path / "more/work/world/progress.txt").read_text()
    assert "adapter: tensors of the adapter it starts from: 4 loaded, 1 missing, 24 unexpected" in progress
    with pytest.raises(AssertionError, match=r"lora_A.weight is \[8, 112\], here \[4, 112\]; use the same r"):
        learn(tmp_path / "rank", start, method("lora", r=4), epochs=1)
