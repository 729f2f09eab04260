"""Tiny models of every family: the same bytes each time, and a model that its own code runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from workspace import ROOT

from workflow.chat import Chat
from workflow.errors import BuildError
from workflow.products.tokenizer import write_tokenizer
from workflow.rehearsal import FAMILIES
from workflow.stand_in import write_stand_in
from workflow.store.files import digests_of

OWN = ROOT / "recipes/models/tiny-qwen2"


def made(folder: Path, family: str | None, files: dict[str, Path] | None = None) -> Path:
    folder.mkdir()
    write_stand_in(folder, family, files or {})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.values())
def test_a_family(tmp_path: Path, family: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    one = made(tmp_path / "one", family)
    assert digests_of(one) == digests_of(made(tmp_path / "other", family))
    model = AutoModelForCausalLM.from_pretrained(one)
    assert (model.config.model_type, model.config.architectures) == (family, [type(model).__name__])
    assert sum(weight.numel() for weight in model.parameters()) < 200_000
    tokenizer = AutoTokenizer.from_pretrained(one)
    text = "<|im_start|>user\n三只猫 and  a dog.<|im_end|>\n"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert max(ids) < model.config.vocab_size
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    assert logits.isfinite().all() and logits.std() > 0


def test_the_models_own_files(tmp_path: Path) -> None:
    config = json.loads((OWN / "config.json").read_text())
    own = tmp_path / "own"
    shutil.copytree(OWN, own)
    grown = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32, "dtype": "bfloat16"}
    grown |= {"num_hidden_layers": 40, "quantization_config": {"quant_method": "gptq"}, "layer_types": ["x"]}
    (own / "config.json").write_text(json.dumps(config | grown))
    one = made(tmp_path / "one", None, {path.name: path for path in own.iterdir()})
    found = json.loads((one / "config.json").read_text())
    assert (found["hidden_size"], found["num_hidden_layers"], found["dtype"]) == (64, 2, "float32")
    assert (found["num_attention_heads"], found["num_key_value_heads"]) == (2, 2)  # one each, as there
    assert "quantization_config" not in found
    for name in ("vocab_size", "max_position_embeddings", "eos_token_id", "hidden_act"):
        assert found[name] == config[name]
    assert (one / "tokenizer.json").read_bytes() == (OWN / "tokenizer.json").read_bytes()
    assert (one / "generation_config.json").read_bytes() == (OWN / "generation_config.json").read_bytes()


def test_an_unknown_family(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="transformers knows no language model 'qwen99'"):
        made(tmp_path / "one", "qwen99")


def test_a_model_that_cannot_be_small(tmp_path: Path) -> None:
    config = json.loads((OWN / "config.json").read_text()) | {"hidden_act": "none"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BuildError, match=r"config\.json cannot be made small: .*none"):
        made(tmp_path / "one", None, {"config.json": tmp_path / "config.json"})


def test_a_tokenizer_that_begins_texts_with_two_tokens(tmp_path: Path) -> None:
    """As GLM's does: `[gMASK]<sop>`; plain text begins with them too."""
    shutil.copytree(OWN, tmp_path / "model")
    path = tmp_path / "model/tokenizer.json"
    settings = json.loads(path.read_text())
    names = ["<|im_start|>", "<|endoftext|>"]
    ids = {entry["content"]: entry["id"] for entry in settings["added_tokens"]}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            *({"SpecialToken": {"id": n, "type_id": 0}} for n in names),
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in names},
    }
    path.write_text(json.dumps(settings))
    config = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    write_tokenizer(tmp_path / "model", tmp_path / "out")
    assert Chat.read(tmp_path / "out").begin == "".join(names)
