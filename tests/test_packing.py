"""Packing: best fit, and rows that do not see each other, architecture by architecture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import token_rows

from workflow.errors import BuildError
from workflow.training.packing import best_fit, pack
from workflow.training.stream import IGNORED, Collator, Stream, grouped_order


def naive(lengths: list[int], capacity: int) -> list[list[int]]:
    """The same by looking at every bin."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [room for room in rooms if room >= lengths[i]]
        if not fitting:
            bins.append([])
            rooms.append(capacity)
            fitting = [capacity]
        number = max(n for n, room in enumerate(rooms) if room == min(fitting))
        bins[number].append(i)
        rooms[number] -= lengths[i]
    return bins


@given(st.lists(st.integers(1, 40), max_size=60))
def test_best_fit_is_best_fit(lengths: list[int]) -> None:
    bins, expected = best_fit(lengths, 40), naive(lengths, 40)
    assert sorted(i for members in bins for i in members) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in members) <= 40 for members in bins)
    assert sorted(sum(lengths[i] for i in b) for b in bins) == sorted(
        sum(lengths[i] for i in b) for b in expected
    )


def test_packs_of_many_rows_are_full() -> None:
    """Lengths as tutorial 0 has them: median 393, longest 1484."""
    random = np.random.Generator(np.random.PCG64(1))
    lengths = np.clip(random.lognormal(6, 0.45, 20_000), 30, 1800).astype(int).tolist()
    bins = best_fit(lengths, 4096)
    assert sum(lengths) / (len(bins) * 4096) > 0.995


def test_a_row_that_fits_no_pack_is_named() -> None:
    with pytest.raises(BuildError, match=r"row row-\d+ has \d+ tokens, training.packing.length is 20; raise"):
        pack(token_rows(9), 20)


def test_grouped_rows_share_batches_of_like_length() -> None:
    rows = [(row,) for row in token_rows(203, tokens=100)]
    plain, grouped = (Stream(rows, 3, 5, 8, grouped=flag) for flag in (False, True))
    assert grouped.steps == plain.steps
    assert sorted(grouped.positions) == sorted(plain.positions)
    for epoch in range(3):  # no row comes before the one of the epoch before
        own = grouped_order(plain.lengths, 3, 5, 8)[203 * epoch : 203 * epoch + 203]
        assert sorted(own) == list(range(203))
    assert padding(grouped) < 0.35 * padding(plain)
    assert grouped.positions == Stream(rows, 3, 5, 8, grouped=True).positions


def padding(stream: Stream) -> int:
    batches = [stream.positions[i : i + 8] for i in range(0, len(stream.positions), 8)]
    lengths = [[stream.lengths[p] for p in batch] for batch in batches]
    return sum(len(batch) * max(batch) - sum(batch) for batch in lengths)


# --- real architectures ---------------------------------------------------------------------------------

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 130, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "n_routed_experts": 4, "first_k_dense_replace": 1, "output_router_logits": False,
}  # fmt: skip
MIXING = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
APART = {
    "qwen2": {}, "qwen3": {}, "llama": {}, "mistral": {"sliding_window": 9}, "glm": {}, "glm4": {},
    "gemma": {}, "gemma2": {"sliding_window": 9}, "gemma3_text": {"sliding_window": 9}, "phi3": {},
    "olmo2": {}, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4}, "mixtral": EXPERTS, "qwen3_moe": EXPERTS,
    "glm4_moe": EXPERTS,
}  # fmt: skip
"""Model type -> what its tiny configuration needs besides SMALL."""
TOGETHER: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4}, "bloom": {}, "qwen3_next": {**EXPERTS, **MIXING},
}  # fmt: skip


def tiny(kind: str, **more: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL, **more)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).float()
    model.eval()  # no dropout
    model.config.use_cache = False  # as training has it: a cache switches packing off in transformers
    with torch.no_grad():  # random weights of 0.02 hardly mix anything
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model


def step(model: Any, batches: list[dict[str, Any]]) -> tuple[float, dict[str, Any]]:
    """Mean loss per token, and its gradients."""
    model.zero_grad()
    tokens = sum((batch["labels"][:, 1:] != IGNORED).sum() for batch in batches)
    losses = [model(**batch, num_items_in_batch=tokens).loss for batch in batches]
    total = sum(losses)
    total.backward()
    return float(total), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", APART)
def test_packed_rows_are_as_if_alone(kind: str) -> None:
    """Loss and gradients, packed and padded, by the collator that trains."""
    from workflow.training.isolation import check_positions, prove_isolation

    model, rows = tiny(kind, **APART[kind]), token_rows(9, tokens=8)
    units = pack(rows, 40)
    assert len(units) < 6
    packed = Collator(0, packed=True)(units)
    assert "attention_mask" not in packed
    loss, gradients = step(model, [packed])
    alone = [Collator(0)([(row,)]) for row in rows]
    expected, wanted = step(model, alone)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert gradients.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert float((gradients[name] - gradient).abs().max()) < 1e-5 * max(1.0, largest), name
    check_positions(model)
    prove_isolation(model, model.config, "cpu", "float32")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TOGETHER)
def test_architectures_that_mix_rows_are_refused(kind: str) -> None:
    from workflow.training.isolation import check_positions, prove_isolation

    model = tiny(kind, **TOGETHER[kind])
    with pytest.raises(BuildError, match=r"^training\.packing: .* leave packing out$"):
        check_positions(model)
        prove_isolation(model, model.config, "cpu", "float32")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_proof_sees_what_one_wrong_position_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Position ids that run on join the rows: the proof must fail on a model that keeps them apart."""
    from workflow.training import isolation

    model = tiny("qwen2")
    whole = Collator(0, packed=True)

    def run_on(unit: Any) -> dict[str, Any]:
        tensors: dict[str, Any] = whole(unit)
        tensors["position_ids"] = tensors["position_ids"] * 0 + tensors["input_ids"].new_ones(
            tensors["input_ids"].shape
        ).cumsum(1)
        return tensors

    monkeypatch.setattr(isolation, "Collator", lambda pad, packed: run_on)
    with pytest.raises(BuildError, match="qwen2 does not keep packed rows apart"):
        isolation.prove_isolation(model, model.config, "cpu", "float32")
