"""Draws by transformers: the same records as vLLM's, from seeds of their own, with adapters of any kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_predictions import answers, by_transformers, job, shards, some_prompts, tiny_model

from workflow.errors import BuildError
from workflow.products import predictions
from workflow.store.store import MANIFEST

ASKED = {"engine": "transformers", "max_tokens": 12}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generation")
    tiny_model(folder / "model")
    shards(folder / "rows", some_prompts(6))
    return folder


def made(place: Path, name: str, **sampling: Any) -> dict[str, list[dict[str, Any]]]:
    asked = job(place / name, place / "rows", place / "model", **(ASKED | sampling))
    predictions.make(asked)
    return answers(place / name)


def test_greedy_is_what_transformers_does(place: Path) -> None:
    reference = by_transformers(place / "model", place / "rows")
    for row, draws in made(place, "greedy", temperature=0, n=1).items():
        assert draws[0]["token_ids"] == reference[row]["token_ids"][:12]


def test_log_probabilities_are_of_the_model_s_own_logits(place: Path) -> None:
    """Whatever temperature and limits were drawn by; what is drawn is the same without them."""
    reference = by_transformers(place / "model", place / "rows", tokens=12)
    for row, (draw,) in made(place, "likely", temperature=0, n=1, logprobs=True).items():
        assert draw["logprob"] == pytest.approx(reference[row]["logprob"], abs=6e-5)
    drawn = made(place, "drawn", temperature=0.3, top_k=3, logprobs=True)
    logprobs = {row: [draw.pop("logprob") for draw in draws] for row, draws in drawn.items()}
    assert drawn == made(place, "quietly", temperature=0.3, top_k=3)
    assert all(value == round(value, 4) < 0 for values in logprobs.values() for value in values)


def test_draws_have_seeds_of_their_own(place: Path) -> None:
    three, five = made(place, "three"), made(place, "five", n=5)
    assert {row: draws[:3] for row, draws in five.items()} == three
    assert any(len({tuple(draw["token_ids"]) for draw in draws}) == 3 for draws in three.values())
    assert made(place, "other", seed=9) != three


def test_stops_and_texts(place: Path) -> None:
    stopped = [d for draws in made(place, "stop", max_tokens=40, stop=["a", "7b"]).values() for d in draws]
    assert not any("a" in draw["text"] or "7b" in draw["text"] for draw in stopped)
    assert {draw["finish_reason"] for draw in stopped} >= {"stop"}
    assert any(draw["token_ids"][-1] != 2 for draw in stopped if draw["finish_reason"] == "stop")
    for draw in (draw for draws in made(place, "free", max_tokens=40).values() for draw in draws):
        assert (draw["token_ids"][-1] == 2) == (draw["finish_reason"] == "stop")


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # PEFT counts them itself
def test_an_adapter_answers_too(place: Path) -> None:
    import torch
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    tuned = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with torch.no_grad():
        tuned.prompt_encoder["default"].embedding.weight.mul_(20)
    tuned.save_pretrained(place / "adapter")
    (place / "adapter" / MANIFEST).write_bytes((place / "model" / MANIFEST).read_bytes())
    plain = made(place, "plain", temperature=0, n=1)
    asked = job(place / "prompted", place / "rows", place / "model", **ASKED, temperature=0, n=1)
    asked.inputs["adapter"] = place / "adapter"
    predictions.make(asked)
    assert answers(place / "prompted") != plain
    prompt = json.loads((place / "prompted/out/predictions.jsonl").read_bytes().splitlines()[0])
    assert (
        prompt["prompt_tokens"]
        == json.loads((place / "plain/out/predictions.jsonl").read_bytes().splitlines()[0])["prompt_tokens"]
    )


def test_what_is_no_adapter(place: Path, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes((place / "model" / MANIFEST).read_bytes())
    asked = job(place / "none", place / "rows", place / "model", **ASKED)
    asked.inputs["adapter"] = tmp_path
    with pytest.raises(BuildError, match=r"cannot be loaded"):
        predictions.make(asked)
