"""Sources of predictions for tests, run in a child: adapters beside their base, constraints, quantisation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tiny_predictions as t

from workflow.errors import BuildError
from workflow.products import predictions
from workflow.store.build import Job

ADAPTER = {"name": "vllm", "weights": "adapter"}
SCHEMA = {"type": "integer"}
LETTERS = {"row-000": "ab", "row-001": "abcd"}


def adapter(folder: Path, model: Path, **config: Any) -> Path:
    """A random LoRA adapter of rank 5 on all linear layers, with its manifest."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model)
    chosen: dict[str, Any] = {"r": 5, "lora_alpha": 10, "target_modules": "all-linear"} | config
    tuned = get_peft_model(base, LoraConfig(**chosen))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    return t.manifest(folder)


def zeroed(folder: Path, like: Path) -> Path:
    """The same adapter, of which nothing is left: what vLLM makes of one whose names it does not know."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(like, folder)
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(path).items()}, path)
    return t.manifest(folder)


def halved(folder: Path, model: Path) -> Path:
    """The model in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, folder)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    return t.manifest(folder)


def asked_rows(folder: Path) -> Path:
    """What rows.jsonl says of two rows: how many options they have."""
    folder.mkdir()
    rows = [{"id": id, "prompt": {"options": list(letters)}} for id, letters in LETTERS.items()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Runs:
    """Jobs in one folder, each named; what they made or refused is read by the tests."""

    def __init__(self, folder: Path):
        self.folder, self.refused = folder, dict[str, str]()

    def run(self, name: str, rows: str, model: Path, beside: Path | None = None, **sampling: Any) -> None:
        held = sampling.pop("schema", None)
        given = t.job(self.folder / name, self.folder / rows, model, **({"max_tokens": 24} | sampling))
        if beside:
            given.inputs["adapter"] = beside
        if held:
            given.sources["json_schema"] = held
        if (sampling.get("constraint") or {}).get("choice") == "options":
            given.inputs["rows"] = self.folder / "asked"
        self.make(name, given)

    def make(self, name: str, given: Job) -> None:
        try:
            predictions.make(given)
        except BuildError as error:
            self.refused[name] = str(error)
        (self.folder / "refused.json").write_text(json.dumps(self.refused))


def scenarios(folder: Path) -> None:
    """Everything that needs an engine; vLLM is started as often as the model or its setup changes."""
    model, runs = folder / "model", Runs(folder)
    beside = adapter(folder / "adapter", model)
    rows = t.some_prompts(20)
    t.shards(folder / "rows", rows)
    t.shards(folder / "two", {id: rows[id] for id in LETTERS})
    asked_rows(folder / "asked")
    schema = folder / "answer.json"
    schema.write_text(json.dumps(SCHEMA))
    greedy: dict[str, Any] = {"temperature": 0, "n": 1}
    runs.run("theirs", "rows", model, beside, engine={"name": "transformers", "weights": "adapter"}, **greedy)
    predictions.Engine = t.Kept  # type: ignore[misc]
    runs.run("tuned", "rows", model, beside, engine=ADAPTER, **greedy)
    t.Kept.kept = None
    runs.run("bare", "rows", model, zeroed(folder / "zero", beside), engine=ADAPTER, **greedy)
    t.Kept.kept = None
    runs.run("base", "rows", model, **greedy)
    runs.run("words", "two", model, constraint={"choice": ["no", "on"]}, logprobs=True)
    runs.run("letters", "two", model, constraint={"choice": "options"})
    runs.run("pattern", "two", model, constraint={"regex": "[0-9]{3}v"})
    runs.run("schema", "two", model, constraint={"choice": None, "regex": None}, schema=schema)
    runs.run("ahead", "two", model, constraint={"regex": "\\w\\b"})
    runs.run("unwritable", "two", model, constraint={"choice": ["Ä"]})
    t.Kept.kept = None
    half = halved(folder / "half", model)
    quantised = {"name": "vllm", "quantization": "fp8_per_channel", "batch_invariant": True}
    runs.run("half", "rows", half, logprobs=True, **greedy)
    t.Kept.kept = None
    runs.run("fp8", "rows", half, engine=quantised, logprobs=True, **greedy)
    t.Kept.kept = None
    runs.run("float32-fp8", "rows", model, engine=quantised, **greedy)
