"""Merging against PEFT itself, over random models and adapters: the same bytes, or the same refusal."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from test_merged import merged_by_peft, tensors

from workflow.products.merged import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True.:UserWarning"),
]
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ENDS = ["embed_tokens", "lm_head"]


def draw(seed: int) -> dict[str, Any]:
    """One model and one adapter."""
    pick = random.Random(seed)
    kind, tied = pick.choice(["qwen2", "llama"]), pick.random() < 0.3
    base = {
        "kind": kind, "tied": tied, "dtype": pick.choice(["float32", "bfloat16", "float16"]),
        "vocab": pick.choice([130, 131, 151]), "sharded": pick.random() < 0.5,
    }  # fmt: skip
    targets = pick.sample(LINEAR, pick.randint(1, 7))
    if pick.random() < 0.1:
        forward = [name for name in targets if name == "down_proj"]
        return {"base": base, "ia3": {"target_modules": targets, "feedforward_modules": forward}}
    chosen: dict[str, Any] = {
        "r": pick.randint(1, 9), "lora_alpha": pick.randint(1, 40), "target_modules": targets,
        "use_rslora": pick.random() < 0.4, "use_dora": pick.random() < 0.15,
        "bias": pick.choice(["none", "none", "all", "lora_only"]),
    }  # fmt: skip
    if pick.random() < 0.3:
        chosen["rank_pattern"] = {pick.choice([*targets, r"layers\.0\..*_proj"]): pick.randint(1, 12)}
    if pick.random() < 0.3:
        chosen["alpha_pattern"] = {pick.choice(targets): pick.randint(1, 99) / 2}
    if pick.random() < 0.3:
        chosen["layers_to_transform"] = [pick.randint(0, 1)]
    if pick.random() < 0.4:
        chosen["modules_to_save"] = ENDS if tied else pick.sample([*ENDS, "norm"], pick.randint(1, 3))
        chosen["ensure_weight_tying"] = tied
    return {"base": base, "lora": chosen}


def make_base(folder: Path, kind: str, tied: bool, dtype: str, vocab: int, sharded: bool) -> Path:
    """A tiny model with random weights, biases too."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    config = {"qwen2": Qwen2Config, "llama": LlamaConfig}[kind](
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=vocab, tie_word_embeddings=tied,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.randn_like(parameter)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="20KB" if sharded else "1GB")
    return folder


def make_adapter(base: Path, folder: Path, drawn: dict[str, Any]) -> Path:
    """An adapter with random weights."""
    import torch
    from peft import IA3Config, LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    config = IA3Config(**drawn["ia3"]) if "ia3" in drawn else LoraConfig(**drawn["lora"])
    model = get_peft_model(model, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + torch.randn_like(parameter) * 0.1
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize(
    "seed", [*range(16), *(pytest.param(n, marks=pytest.mark.slow) for n in range(16, 216))]
)
def test_bytes_are_those_of_peft(tmp_path: Path, seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    drawn = draw(seed)
    base = make_base(tmp_path / "base", **drawn["base"])
    adapter = make_adapter(base, tmp_path / "adapter", drawn)
    (tmp_path / "out").mkdir()
    counts = merge(base, adapter, tmp_path / "out")
    expected, got = tensors(merged_by_peft(base, adapter, tmp_path / "peft")), tensors(tmp_path / "out")
    assert got.keys() == expected.keys()
    assert [name for name in expected if expected[name] != got[name]] == []
    before = tensors(base)
    assert sum(got[name] != before[name] for name in got) == counts["changed_tensors"] > 0


def test_the_draws_cover_what_they_should() -> None:
    drawn = [draw(seed) for seed in range(216)]
    assert sum("ia3" in one for one in drawn) > 10
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        assert sum(bool(one.get("lora", {}).get(key)) for one in drawn) > 20, key
    tied = [one for one in drawn if one["base"]["tied"] and one.get("lora", {}).get("modules_to_save")]
    assert len(tied) > 10
