"""Several adapters as one, against PEFT on the real base; and the graph of recipes that start from others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_merge_grid import make_adapter, make_base
from workspace import BASE, RECIPE, Folder, folder

from workflow import state
from workflow.combining import combine
from workflow.errors import BuildError
from workflow.recipe.tuning import ROLE
from workflow.settle import last_files
from workflow.store.build import Job

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PLAIN = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj", "down_proj"]}
WEIGHTS = {"one": 0.75, "two.b": -0.5}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), "qwen2", False, "float32", 130, False)


def job(root: Path, base: Path, adapters: dict[str, Path], combination: str, density: float | None) -> Job:
    """The job of `method: combined`."""
    tuning = {"of": {name: WEIGHTS[name] for name in adapters}, "combination": combination}
    inputs = {"model": base} | {ROLE + name: path for name, path in adapters.items()}
    out = root / "out"
    out.mkdir()
    chosen = {"tuning": {"method": "combined", **tuning, "density": density, "seed": 3}}
    return Job(chosen, inputs, {}, out, root, root)


def adapters(root: Path, base: Path, **changes: Any) -> dict[str, Path]:
    """Two random adapters; the second with `changes`."""
    one = make_adapter(base, root / "one", {"lora": PLAIN})
    return {"one": one, "two.b": make_adapter(base, root / "two", {"lora": PLAIN | changes})}


@pytest.mark.parametrize(
    ("combination", "density"),
    [("linear", None), ("cat", None), ("ties", 0.5), ("dare_linear", 0.5), ("dare_ties", 0.25)],
)
def test_combinations_are_those_of_peft(
    tmp_path: Path, base: Path, combination: str, density: float | None
) -> None:
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    given = adapters(tmp_path, base)
    counts = combine(job(tmp_path, base, given, combination, density))
    assert counts == {"adapters": 2, "rank": 8 if combination == "cat" else 4}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), given["one"], "a")
    model.load_adapter(given["two.b"], "b")
    torch.manual_seed(3)
    model.add_weighted_adapter(["a", "b"], [0.75, -0.5], "c", combination, density=density)
    expected = get_peft_model_state_dict(model, adapter_name="c", save_embedding_layers=False)
    found = load_file(tmp_path / "out/adapter_model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (
        counts["rank"],
        counts["rank"],
        False,
    )


def test_cat_is_the_weighted_sum_even_of_stabilised_adapters(tmp_path: Path, base: Path) -> None:
    """PEFT alone would scale the result of rslora adapters once more."""
    import torch
    from safetensors.torch import load_file

    one = make_adapter(base, tmp_path / "one", {"lora": PLAIN | {"use_rslora": True}})
    two = make_adapter(base, tmp_path / "two", {"lora": PLAIN | {"r": 2}})
    combine(job(tmp_path, base, {"one": one, "two.b": two}, "cat", None))
    prefix = "base_model.model.model.layers.1.mlp.down_proj.lora_"

    def product(path: Path) -> torch.Tensor:
        tensors = load_file(path / "adapter_model.safetensors")
        return tensors[f"{prefix}B.weight"] @ tensors[f"{prefix}A.weight"]

    expected = 0.75 * 12 / 2 * product(one) - 0.5 * 12 / 2 * product(two)
    torch.testing.assert_close(product(tmp_path / "out"), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 3}, r"linear needs adapters of one rank \(one 4, two.b 3\); use cat"),
        ({"rank_pattern": {"q_proj": 2}}, "the adapter of two.b has rank_pattern; only plain factors"),
        ({"modules_to_save": ["lm_head"]}, "the adapter of two.b has modules_to_save"),
        ({"bias": "lora_only"}, "the adapter of two.b has bias"),
    ],
)
def test_what_cannot_be_combined(tmp_path: Path, base: Path, changes: Any, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        combine(job(tmp_path, base, adapters(tmp_path, base, **changes), "linear", None))


# --- graphs ---------------------------------------------------------------------------------------------

LORA = "{method: lora, r: 8, lora_alpha: 32, target_modules: all-linear}"
OF = "of: {small: 0.5, other: 0.5}, combination: linear"


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    """`small` and `other` are two LoRAs of one model."""
    found = folder(tmp_path / "w")
    write(found, "other", RECIPE.replace("seed: 1}", "seed: 2}"))
    return found


def write(place: Folder, name: str, text: str) -> None:
    place.path(f"recipes/{name}.yaml").write_text(text)


def tuned(tuning: str) -> str:
    """The recipe with another tuning."""
    assert LORA in RECIPE
    return RECIPE.replace(LORA, tuning)


def combined(of: str = OF) -> str:
    return re.sub("(  train|training|deepspeed): .*\n", "", tuned(f"{{method: combined, {of}}}"))


@pytest.mark.slow
def test_an_adapter_is_behind_those_it_is_made_from(place: Folder) -> None:
    write(place, "started", tuned(LORA.replace("lora,", "lora, initialise: {recipe: small},")))
    write(place, "mixed", tuned(LORA.replace("lora,", f"lora, initialise: {{{OF}}},")))
    write(place, "combined", combined())
    names = ("started", "mixed", "combined")
    before = {name: place.graph(name) for name in names}
    small, other = (place.graph(name).node("adapter").address for name in ("small", "other"))
    assert before["started"].node("adapter").inputs["start"].address == small
    for start in (before["mixed"].node("adapter").inputs["start"], before["combined"].node("adapter")):
        assert {start.inputs[ROLE + "small"].address, start.inputs[ROLE + "other"].address} == {small, other}
    assert "voted" in before["combined"].products
    assert not {"rows_train", "shards_train"} & before["combined"].products.keys()
    known, mixture = state.names(place.draw(), "mixed"), before["mixed"].node("start").address
    assert before["mixed"].nodes.keys() <= known.keys()
    assert [known[a] for a in (small, other, mixture)] == ["small/adapter", "other/adapter", "start"]
    planned = place.planned("results/mixed/merged", "results/combined/merged")
    assert planned["adapter"] == 6  # of base, small, other, their two mixtures, and mixed
    place.edit("small.yaml", "r: 8", "r: 4")
    for name in names:
        assert place.graph(name).node("merged").address != before[name].node("merged").address


DORA = "{method: dora, r: 8, lora_alpha: 32, initialise: {recipe: small}}"
FROM = LORA.replace("lora,", "lora, initialise: {recipe: small},")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (tuned(DORA), "needed as one of dora"),
        (combined(OF.replace("other", "small-base")), "its adapter is needed as one of lora"),
        (tuned(FROM).replace("small-base", "third"), "the adapter of recipe small belongs to another model"),
        (tuned(FROM.replace("small", "bad")), "in a circle: bad -> bad"),
        (tuned(FROM.replace("small", "gone")), "gone.yaml: no such recipe"),
    ],
)
def test_recipes_that_cannot_start_from_one_another(place: Folder, text: str, message: str) -> None:
    write(place, "third", BASE.replace("seed: 3", "seed: 4"))
    write(place, "bad", text)
    with pytest.raises(BuildError, match=message):
        place.graph("bad")


def test_trained_prompts_end_at_the_adapter(place: Folder) -> None:
    text = tuned("{method: prompt_tuning, virtual_tokens: 4}")
    write(place, "prompt", text[: text.index("sampling:")])
    graph = place.graph("prompt")
    assert last_files(graph) == ["adapter"]
    with pytest.raises(BuildError, match=r"merged: prompt_tuning trains a prompt .* nothing to merge"):
        graph.node("merged")
    write(place, "stacked", RECIPE.replace("small-base", "prompt"))
    with pytest.raises(BuildError, match="nothing to merge"):
        place.graph("stacked")
