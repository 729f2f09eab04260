"""The product `merged` against PEFT itself, and every input that it refuses."""

import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from workflow.checkpoint import read_weight_file
from workflow.errors import BuildError
from workflow.products.merged import link_model, merge

pytestmark = [
    # transformers 5.23 deprecates what PEFT 0.21.2 asks it.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning"),
]

ATTENTION = ["q_proj", "v_proj"]
PATTERNS: dict[str, Any] = {
    "rank_pattern": {"q_proj": 3, r"layers\.0\.self_attn\.(k|v)_proj": 5, "^model.layers.1.mlp.down_proj": 2},
    "alpha_pattern": {r"layers\.\d+\.mlp\.up_proj": 5, "q_proj": 7, "self_attn.q_proj": 1000},
}


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a maker of tiny bases and adapters; each is made once, and tests do not change it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    class Make:
        @staticmethod
        @cache
        def base(
            kind: str = "qwen2", dtype: str = "float32", tied: bool = False, sharded: bool = False
        ) -> Path:
            torch.manual_seed(1)
            config = {"qwen2": Qwen2Config, "llama": LlamaConfig}[kind](
                hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, vocab_size=130, tie_word_embeddings=tied,
            )  # fmt: skip
            folder = tmp_path_factory.mktemp(f"{kind}-{dtype}")
            model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
            model.save_pretrained(folder, max_shard_size="60KB" if sharded else "1GB")
            (folder / "tokenizer.json").write_text("{}")
            (folder / "chat_template.jinja").write_text("{{ messages }}")
            return folder

        @staticmethod
        @cache
        def adapter(
            base: Path, dtype: str = "float32", settings: str = '{"target_modules": "all-linear"}'
        ) -> Path:
            torch.manual_seed(2)
            model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
            model = get_peft_model(model, LoraConfig(r=8, lora_alpha=12, **json.loads(settings)))
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    stored = getattr(torch, dtype) if "lora_" in name else parameter.dtype
                    parameter.data = (torch.randn_like(parameter) * 0.1).to(stored)
            folder = tmp_path_factory.mktemp("adapter")
            model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "tokenizer.json").write_text('{"from": "the adapter"}')
            return folder

    return Make


@pytest.fixture
def adapter(make: Any, tmp_path: Path) -> Path:
    """Copy the default adapter of the default base, for a test to damage."""
    return Path(shutil.copytree(make.adapter(make.base()), tmp_path / "adapter"))


@pytest.fixture
def base(make: Any, tmp_path: Path) -> Path:
    """Copy a sharded base, for a test to damage, with files beside it that must not travel."""
    folder = Path(shutil.copytree(make.base(sharded=True), tmp_path / "base"))
    for name in ("modeling_x.py", "adapter_config.json", "optimizer.pt", "pytorch_model.bin.index.json"):
        (folder / name).write_text("{}")
    return folder


def read_only(folder: Path) -> None:
    """Protect a folder's files, as the store does: only such files are hard-linked."""
    for path in folder.iterdir():
        path.resolve().chmod(0o444)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Make the empty folder to fill."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Read every tensor of a model: dtype, shape and bytes, by name."""
    files = [read_weight_file(path) for path in folder.glob("model*.safetensors")]
    return {
        t.name: (t.dtype, t.shape, file.path.read_bytes()[t.start : t.start + t.nbytes])
        for file in files
        for t in file.tensors.values()
    }


def merged_by_peft(base: Path, adapter: Path, out: Path) -> Path:
    """Merge with PEFT and save, as its documentation shows."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), adapter)
    model.merge_and_unload().save_pretrained(out)
    return out


def set_config(folder: Path, name: str = "adapter_config.json", **changes: Any) -> None:
    """Change keys of a JSON file."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def save_adapter(folder: Path, changes: dict[str, Any]) -> None:
    """Change tensors of an adapter; None removes one."""
    from safetensors.torch import load_file, save_file

    path = folder / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in (load_file(path) | changes).items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


CHOICES = list(itertools.product(["all-linear", ATTENTION], [False, True], [{}, PATTERNS]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("adapter_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("targets", "rslora", "patterns"), CHOICES)
def test_bytes_are_those_of_peft(
    make: Any,
    out: Path,
    tmp_path: Path,
    dtype: str,
    adapter_dtype: str,
    targets: Any,
    rslora: bool,
    patterns: Any,
) -> None:
    base = make.base(dtype=dtype)
    adapter = make.adapter(
        base, adapter_dtype, json.dumps({"target_modules": targets, "use_rslora": rslora, **patterns})
    )
    counts = merge(base, adapter, out)
    assert counts["merged_tensors"] == (14 if targets == "all-linear" else 4)
    expected, got = tensors(merged_by_peft(base, adapter, tmp_path / "peft")), tensors(out)
    assert [name for name in expected if expected[name] != got[name]] == []
    assert got.keys() == expected.keys()
    before = tensors(base)
    assert sum(got[name] != before[name] for name in got) == counts["merged_tensors"]


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bytes_are_those_of_peft_for_sharded_and_tied_models(
    make: Any, out: Path, tmp_path: Path, kind: str, tied: bool, dtype: str
) -> None:
    base = make.base(kind, dtype, tied, sharded=True)
    adapter = make.adapter(base)
    counts = merge(base, adapter, out)
    assert counts["files"] > 2
    assert tensors(out) == tensors(merged_by_peft(base, adapter, tmp_path / "peft"))
    assert ("lm_head.weight" in tensors(out)) is not tied


@pytest.mark.parametrize("saved_dtype", ["float32", "float16"])
def test_modules_to_save_replace_the_base_in_its_dtype(
    make: Any, out: Path, tmp_path: Path, saved_dtype: str
) -> None:
    import torch

    base = make.base(dtype="bfloat16")
    settings = {"target_modules": ATTENTION, "modules_to_save": ["lm_head", "norm"]}
    adapter = Path(shutil.copytree(make.adapter(base, settings=json.dumps(settings)), tmp_path / "adapter"))
    lm_head = torch.randn(130, 64, generator=torch.Generator().manual_seed(3)).to(getattr(torch, saved_dtype))
    save_adapter(adapter, {"base_model.model.lm_head.weight": lm_head})
    counts = merge(base, adapter, out)
    assert counts["merged_tensors"] == 4
    assert counts["replaced_tensors"] == 6  # "input_layernorm" ends with "norm" too
    assert tensors(out) == tensors(merged_by_peft(base, adapter, tmp_path / "peft"))


def test_lm_head_with_lora_merges_when_the_base_is_untied(make: Any, out: Path, tmp_path: Path) -> None:
    base = make.base()
    adapter = make.adapter(base, settings=json.dumps({"target_modules": ["lm_head", "o_proj"]}))
    assert merge(base, adapter, out)["merged_tensors"] == 3
    assert tensors(out) == tensors(merged_by_peft(base, adapter, tmp_path / "peft"))


def test_merged_model_computes_what_base_and_adapter_compute(make: Any, out: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = make.base("llama")
    adapter = make.adapter(base, settings=json.dumps({"target_modules": "all-linear", **PATTERNS}))
    merge(base, adapter, out)
    ids = torch.arange(24).view(2, 12)
    with torch.no_grad():
        untuned = AutoModelForCausalLM.from_pretrained(base)(ids).logits
        tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(out)(ids).logits
    torch.testing.assert_close(merged, tuned, rtol=1e-4, atol=1e-5)
    assert (merged - untuned).abs().max() > 0.05


def test_layout_companions_and_progress(make: Any, base: Path, out: Path) -> None:
    seen: list[tuple[int, int]] = []
    adapter = make.adapter(
        make.base(), settings=json.dumps({"target_modules": ["model.layers.1.mlp.down_proj"]})
    )
    real = base / "blob"
    (base / "tokenizer.json").rename(real)
    (base / "tokenizer.json").symlink_to(real)
    read_only(base)
    counts = merge(base, adapter, out, lambda done, total: seen.append((done, total)))
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in base.glob("model-*.safetensors")), "model.safetensors.index.json",
        "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja",
    }  # fmt: skip
    assert (out / "tokenizer.json").read_text() == "{}"
    assert not (out / "tokenizer.json").is_symlink()
    assert seen[-1] == (counts["bytes"], counts["bytes"])
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    same = [path.name for path in out.glob("model-*") if os.path.samefile(path, base / path.name)]
    assert len(same) == counts["unchanged_files"] == counts["files"] - 1
    for path in out.glob("model-*"):
        assert read_weight_file(path).header == read_weight_file(base / path.name).header
        assert b'"format":"pt"' in read_weight_file(path).header


def test_two_merges_give_the_same_bytes(make: Any, tmp_path: Path) -> None:
    base = make.base("llama", "bfloat16", sharded=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        merge(base, make.adapter(base), tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_symlinked_weights_are_linked_to_the_real_file(base: Path, out: Path, tmp_path: Path) -> None:
    read_only(base)
    view = tmp_path / "snapshot"
    view.mkdir()
    for path in base.iterdir():
        (view / path.name).symlink_to(path)
    counts = link_model(view, out)
    assert counts["unchanged_files"] == counts["files"] == len(list(base.glob("model-*")))
    assert not any(path.is_symlink() for path in out.iterdir())
    assert all(os.path.samefile(path, base / path.name) for path in out.iterdir())
    assert {path.name for path in base.iterdir()} - {path.name for path in out.iterdir()} == {
        "modeling_x.py", "adapter_config.json", "optimizer.pt", "pytorch_model.bin.index.json"
    }  # fmt: skip


def test_copies_when_links_are_impossible(base: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    read_only(base)
    monkeypatch.setattr(os, "link", refuse)
    link_model(base, out)
    assert tensors(out) == tensors(base)
    assert not any(os.path.samefile(path, base / path.name) for path in out.iterdir())


def test_files_that_somebody_may_still_write_are_copied(base: Path, out: Path) -> None:
    link_model(base, out)
    assert tensors(out) == tensors(base)
    assert not any(os.path.samefile(path, base / path.name) for path in out.iterdir())


def test_import_is_light() -> None:
    code = "import sys, workflow.products.merged; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"bias": "lora_only"}, "self_attn.k_proj.bias is in bias but not in the adapter"),
        ({"bias": "all"}, "self_attn.k_proj.bias is in bias but not in the adapter"),
        ({"lora_bias": True}, "lora_bias: biases"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out: transposed"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices: trained token rows"),
        ({"target_parameters": ["mlp.experts.gate"]}, "target_parameters: LoRA on bare"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: replicated"),
        ({"kasa_config": {"beta": 1}}, "kasa_config: this variant"),
        ({"a_key_of_next_year": 1}, "a_key_of_next_year: this variant"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; only LORA and IA3 are merged"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base"),
        ({"r": 4}, "with rank 4 needs"),
        ({"r": 0}, "r of model.layers.0.mlp.down_proj is 0"),
        ({"lora_alpha": None}, "lora_alpha of model.layers.0.mlp.down_proj is None"),
        ({"rank_pattern": {"q_proj": 2}}, "with rank 2 needs"),
        ({"rank_pattern": {"(": 2}}, "a pattern for r"),
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight is in modules_to_save but not in the adapter"),
    ],
)
def test_refuses_adapters_by_their_config(
    make: Any, adapter: Path, out: Path, change: Any, message: str
) -> None:
    set_config(adapter, **change)
    with pytest.raises(BuildError) as error:
        merge(make.base(), adapter, out)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(out.iterdir()) == []


Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{Q}.lora_B.weight", None, "model.layers.0.self_attn.q_proj has only lora_A"),
        (f"{Q}.lora_B.weight", (65, 8), "lora_B [65, 8]; a weight [64, 64] with rank 8"),
        (f"{Q}.lora_A.weight", (8, 64, 1), "lora_A [8, 64, 1]"),
        (f"{Q}.lora_magnitude_vector.weight", (64,), "is neither a LoRA factor"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (8, 130), "is neither a LoRA factor"),
        ("base_model.model.model.embed_tokens.weight", (130, 64), "is neither a LoRA factor"),
        ("base_model.model.model.layers.7.mlp.up_proj.lora_A.weight", (8, 64), "1 of 15 changed weights"),
        ("base_model.model.model.norm.lora_A.weight", (8, 64), "model.norm has only lora_A"),
    ],
)
def test_refuses_adapters_by_their_tensors(
    make: Any, adapter: Path, out: Path, name: str, shape: Any, message: str
) -> None:
    import torch

    save_adapter(adapter, {name: None if shape is None else torch.ones(shape)})
    with pytest.raises(BuildError) as error:
        merge(make.base(), adapter, out)
    assert message in str(error.value)


def test_refuses_other_damage_of_the_adapter(make: Any, adapter: Path, out: Path) -> None:
    import torch

    save_adapter(adapter, {f"{Q}.lora_A.weight": torch.full((8, 64), float("nan"))})
    with pytest.raises(BuildError, match=r"q_proj.weight becomes NaN or infinite"):
        merge(make.base(), adapter, out)
    save_adapter(adapter, {f"{Q}.lora_A.weight": torch.ones(8, 64, dtype=torch.int8)})
    with pytest.raises(BuildError, match=r"lora_A.weight is I8"):
        merge(make.base(), adapter, out)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BuildError, match=r"adapter_model.safetensors: cannot be read: No such file"):
        merge(make.base(), adapter, out)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(BuildError, match=r"adapter_config.json: cannot be read"):
        merge(make.base(), adapter, out)


def test_refuses_an_adapter_of_another_model_naming_the_first(
    make: Any, adapter: Path, base: Path, out: Path
) -> None:
    from safetensors.torch import load_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_adapter(adapter, dict.fromkeys(weights))
    with pytest.raises(BuildError, match="holds no tensors"):
        merge(base, adapter, out)
    save_adapter(
        adapter, {name.replace("model.layers", "model.text.layers"): weights[name] for name in weights}
    )
    with pytest.raises(BuildError, match="14 of 14 changed weights are not in the base") as error:
        merge(base, adapter, out)
    assert str(error.value).count("model.text.layers") == 3
    assert "and 11 more" in str(error.value)


def test_refuses_tied_embeddings_and_transposed_architectures(
    make: Any, base: Path, out: Path, adapter: Path
) -> None:
    head = make.adapter(make.base(), settings=json.dumps({"target_modules": ["lm_head"]}))
    with pytest.raises(BuildError, match="or on an lm_head tied to its embeddings"):
        merge(make.base(tied=True), head, out)
    saving = make.adapter(
        make.base(), settings=json.dumps({"target_modules": ATTENTION, "modules_to_save": ["embed_tokens"]})
    )
    for value in (True, None):
        set_config(base, "config.json", tie_word_embeddings=value)
        for changed in (head, saving):
            with pytest.raises(BuildError, match="does not say tie_word_embeddings: false"):
                merge(base, changed, out)
    set_config(base, "config.json", model_type="gpt2")
    with pytest.raises(BuildError, match="gpt2 stores its weights transposed"):
        merge(base, adapter, out)


def test_refuses_incomplete_bases(base: Path, adapter: Path, out: Path) -> None:
    index = base / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    first = min(good["weight_map"].values())
    cases = {
        "has no weight_map": {},
        "names 'gone.safetensors', which is no file": {"x": "gone.safetensors"},
        r"names '../config.json', which is no file": {"x": "../config.json"},
        "x, y, z and 1 more are not in the named file": dict.fromkeys("xyzw", first),
    }
    for message, weight_map in cases.items():
        set_config(base, index.name, weight_map=weight_map)
        with pytest.raises(BuildError) as error:
            merge(base, adapter, out)
        assert message in str(error.value)
    path, *held = max(([p, *read_weight_file(p).tensors] for p in base.glob("model-*")), key=len)
    shutil.copy(path, base / "twin.safetensors")
    index.write_text(json.dumps({"weight_map": {held[0]: path.name, held[1]: "twin.safetensors"}}))
    with pytest.raises(BuildError, match="also in another file of the model"):
        merge(base, adapter, out)
    index.write_text("{")
    with pytest.raises(BuildError, match="cannot be read as JSON"):
        merge(base, adapter, out)
    index.unlink()
    (base / "pytorch_model.bin").touch()
    with pytest.raises(BuildError, match=r"only pytorch_model.bin, a pickle.*save the model as safetensors"):
        link_model(base, out)
    (base / "pytorch_model.bin").unlink()
    with pytest.raises(BuildError, match="has no weights"):
        merge(base, adapter, out)


def header(*entries: tuple[str, list[int], list[int]], dtype: str = "F32") -> bytes:
    """Write a safetensors header for tensors of the given shapes and offsets."""
    table = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets} for name, shape, offsets in entries
    }
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00\x00",
        struct.pack("<Q", 1000) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{x}",
        struct.pack("<Q", 2) + b"\xff\xff",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 14) + b'{"a":1,"a": 2}',
        struct.pack("<Q", 9) + b'{"a": {}}',
        header(("a", [2], [0, 8]), ("b", [2], [4, 12])) + bytes(12),
        header(("a", [2], [0, 8]), ("b", [2], [12, 20])) + bytes(20),
        header(("a", [2], [0, 8])) + bytes(4),
        header(("a", [2], [0, 8])) + bytes(12),
        header(("a", [3], [0, 8])) + bytes(8),
        header(("a", [-2], [8, 0])) + bytes(8),
        header(("a", [2], [8, 0]), dtype="NEW") + bytes(8),
        header(("a", [2], [0, 8, 9])) + bytes(9),
    ],
)
def test_malformed_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=r"model.safetensors: not a safetensors file: .+; copy it again"):
        read_weight_file(path)


def test_header_of_scalars_and_empty_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header(("b", [], [0, 4]), ("a", [0, 3], [4, 4]), ("c", [1], [4, 8])) + bytes(8))
    assert [(t.name, t.shape, t.nbytes) for t in read_weight_file(path).tensors.values()] == [
        ("b", (), 4), ("a", (0, 3), 0), ("c", (1,), 4)
    ]  # fmt: skip


MEASURE = """
import sys, torch
from pathlib import Path
from workflow.products.merged import merge
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) // 1024
torch.ones(99, 99) @ torch.ones(99, 99)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
before = memory("VmRSS")
print(merge(*map(Path, sys.argv[1:]))["merged_tensors"], memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    base, adapter, out = (tmp_path / name for name in ("base", "adapter", "out"))
    for folder in (base, adapter, out):
        folder.mkdir()
    names = [f"layers.{i}.q_proj" for i in range(36)]
    weight = torch.randn(2048, 4096).bfloat16()
    factors = {"A": torch.randn(8, 4096), "B": torch.randn(2048, 8)}
    shards = {f"model-{k}.safetensors": names[9 * k : 9 * k + 9] for k in range(4)}
    for file, held in shards.items():
        save_file({f"{name}.weight": weight.clone() for name in held}, base / file)
    weight_map = {f"{name}.weight": file for file, held in shards.items() for name in held}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (base / "config.json").write_text("{}")
    keys = [(f"base_model.model.{name}.lora_{key}.weight", key) for name in names[::2] for key in "AB"]
    lora = {name: factors[key].clone() for name, key in keys}
    save_file(lora, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 16}')
    command = [sys.executable, "-c", MEASURE, base, adapter, out]
    merged, growth = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(merged) == 18
    assert int(growth) < 150  # MB; the model has 604, a file 151
