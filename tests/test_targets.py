"""Names in a recipe's tuning section against the model's own modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from test_merge_grid import make_adapter, make_base

from workflow.checkpoint import same_weights
from workflow.errors import BuildError
from workflow.products.merged import merge
from workflow.recipe.tuning import Tuning
from workflow.training.targets import check_names

FACTORS = {"method": "lora", "r": 4, "lora_alpha": 8}
SAVED = {"modules_to_save": ["embed_tokens", "lm_head"]}
IA3 = {"method": "ia3", "target_modules": ["q_proj"], "feedforward_modules": []}
QLORA = {**FACTORS, "method": "qlora", "quantization": {"type": "nf4"}}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Tied or not -> a tiny model."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        tied: make_base(folder / f"{tied}", "qwen2", tied, "float32", 130, False) for tied in (False, True)
    }


def check(base: Path, given: dict[str, Any]) -> None:
    check_names(TypeAdapter(Tuning).validate_python(given), base)


@pytest.mark.parametrize(
    "given",
    [
        FACTORS | SAVED,
        FACTORS
        | {"rank_pattern": {"q_proj": 2, r"layers\.1\..*down_proj": 3}, "alpha_pattern": {"v_proj": 5}},
        FACTORS | {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        QLORA | SAVED,
        IA3,
        {"method": "full"},
        {"method": "prompt_tuning", "virtual_tokens": 3},
    ],
)
def test_what_is_there(bases: dict[bool, Path], given: dict[str, Any]) -> None:
    for base in bases.values():
        check(base, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            FACTORS | {"target_modules": ["q_proj", "dense"]},
            "target_modules: dense match nothing .* down_proj, ",
        ),
        (IA3 | {"target_modules": ["c_attn"]}, "target_modules: c_attn match nothing"),
        (
            FACTORS | {"modules_to_save": ["wte"]},
            "modules_to_save: wte match nothing .* modules are .*embed_tokens",
        ),
        (FACTORS | {"rank_pattern": {"c_proj": 2}}, "rank_pattern: c_proj match nothing in the model"),
        (FACTORS | {"alpha_pattern": {"(": 2}}, r"alpha_pattern: '\(' is no regular expression"),
        (
            FACTORS | {"rank_pattern": {"q_proj": 2, "[qk]_proj": 3}},
            r"q_proj and \[qk\]_proj both match model.layers",
        ),
        (
            FACTORS | {"target_modules": ["q_proj"], "layers_to_transform": [1, 2]},
            "2 match nothing .* 2 layers: 0, 1",
        ),
        (
            QLORA | {"modules_to_save": ["down_proj"]},
            "down_proj is quantised by qlora and cannot be trained whole",
        ),
    ],
)
def test_what_is_not(bases: dict[bool, Path], given: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        check(bases[False], given)


def test_factors_of_a_tied_output_are_refused(bases: dict[bool, Path]) -> None:
    head = FACTORS | {"target_modules": ["q_proj", "lm_head"]}
    check(bases[False], head)
    with pytest.raises(BuildError, match="lm_head shares its weight with the input embeddings"):
        check(bases[True], head)


def test_a_base_that_is_stored_quantised_is_refused(bases: dict[bool, Path], tmp_path: Path) -> None:
    config = json.loads((bases[False] / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BuildError, match="stored quantised .* give the unquantised model"):
        check(tmp_path, {"method": "full"})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_merge_that_changes_nothing_fails(bases: dict[bool, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = make_adapter(
        bases[False], tmp_path / "adapter", {"lora": {"r": 2, "target_modules": ["q_proj"]}}
    )
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    for scale, fails in ((1e-3, False), (1e-30, True), (0.0, True)):
        scaled = {name: tensor * scale if "lora_B" in name else tensor for name, tensor in tensors.items()}
        save_file(scaled, path)
        out = tmp_path / f"out-{scale}"
        out.mkdir()
        if not fails:
            assert merge(bases[False], adapter, out)["changed_tensors"] == 2
            assert not same_weights(bases[False], out)
            continue
        with pytest.raises(
            BuildError, match="leaves every weight of the base as it was.*higher learning rate"
        ):
            merge(bases[False], adapter, out)
    assert same_weights(bases[False], out)
