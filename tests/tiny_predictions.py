"""Predictions for tests: a tiny random model, token rows, jobs, and vLLM in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from token_rows import write_shard

from workflow import engine
from workflow.engine import Draw, Question
from workflow.products import predictions
from workflow.recipe.answers import Sampling
from workflow.store.build import Job, Resources
from workflow.store.files import digests_of, write_atomic
from workflow.store.records import Manifest
from workflow.store.store import MANIFEST
from workflow.tokens import Rendering, TokenRow, write_rendering
from workflow.vllm_start import Setup

ROOT = Path(__file__).parents[1]
SAMPLING = {"n": 3, "temperature": 1.0, "max_tokens": 16, "seed": 7}
SYMBOLS = ["<pad>", "<start>", "<end>", "<unk>", *"abcdefghijklmnopqrstuvABCD0123456789"]


def manifest(folder: Path, counts: dict[str, Any] | None = None) -> Path:
    """Write the manifest that a product's folder has in the store."""
    (folder / MANIFEST).unlink(missing_ok=True)
    found = Manifest.model_validate({"files": digests_of(folder), "counts": counts or {}})
    write_atomic(folder / MANIFEST, found.body)
    return folder


def shards(folder: Path, prompts: dict[str, list[int]], rows_per_shard: int = 100) -> Path:
    """A shards folder with these prompts, in this order."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").touch()
    rows = [
        TokenRow(id, np.array(ids, np.int32), np.zeros(len(ids), np.uint8), len(ids))
        for id, ids in prompts.items()
    ]
    for number, begin in enumerate(range(0, len(rows), rows_per_shard)):
        write_shard(folder, number, rows[begin : begin + rows_per_shard])
    write_rendering(folder, Rendering(stop_token_ids=[2], stop=[], pad_token_id=0))
    return folder


def job(folder: Path, rows: Path, model: Path, pieces: Path | None = None, **sampling: Any) -> Job:
    """With its own `out`, and a `work` that a second attempt finds again; the key is the folder's name."""
    out, work = folder / "out", folder / "work" / folder.name
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    inputs = {"shards": rows, "model": model}
    return Job(
        {"sampling": SAMPLING | sampling}, inputs, {}, out, work, pieces or folder / "pieces",
        {}, Resources(threads=2),
    )  # fmt: skip


def context(job: Job) -> Path:
    """Where the draws of a job are kept."""
    return job.pieces / "predictions" / predictions.context(job)


def record(job: Job) -> dict[str, Any]:
    """What a finished job left for its run record."""
    found: dict[str, Any] = json.loads((job.work / "run.json").read_bytes())
    return found


def model_config(folder: Path, **config: Any) -> Path:
    """A model folder with nothing but a configuration and a manifest."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return manifest(folder)


def tiny_model(folder: Path) -> Path:
    """A random 2-layer Qwen2 in float32 with one token per character; unlike logits, so few ties."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = Tokenizer(models.WordLevel({s: i for i, s in enumerate(SYMBOLS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    words.decoder = decoders.Fuse()
    tokens = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **tokens).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(SYMBOLS), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=False,
        eos_token_id=2, pad_token_id=0, bos_token_id=None, initializer_range=0.15,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.generation_config.update(temperature=0.01, top_k=1, repetition_penalty=9.0)  # must be ignored
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    return manifest(folder)


def some_prompts(count: int) -> dict[str, list[int]]:
    """Prompts of 5 to 45 tokens; every other one shares a beginning of 32 tokens."""
    random = np.random.default_rng(0)
    system = random.integers(4, len(SYMBOLS), 32).tolist()
    return {
        f"row-{i:03d}": (system if i % 2 else []) + [1, *random.integers(4, len(SYMBOLS), 4 + i % 9).tolist()]
        for i in range(count)
    }


def child(script: str, *arguments: Path) -> subprocess.Popen[str]:
    """Python with this module imported as `t`, in a process group of its own."""
    cache = Path(tempfile.gettempdir()) / f"tunemake-tests-bytecode-{os.getuid()}"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)}
    path = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    code = "import sys, tiny_predictions as t\nfrom pathlib import Path\n" + script
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a child that must succeed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


class Kept(engine.Engine):
    """An engine that outlives `make`, so that one start serves many scenarios; it notes what it is asked."""

    kept: Kept | None = None
    limit: int | None = None
    asked: list[tuple[str, int]]

    def __new__(cls, setup: Setup) -> Kept:
        cls.kept = cls.kept or super().__new__(cls)
        return cls.kept

    def __init__(self, setup: Setup) -> None:
        self.asked = []
        if not hasattr(self, "draws_at_once"):
            super().__init__(setup)

    @property
    def in_flight(self) -> int:
        return self.limit or super().in_flight

    def answer(
        self, questions: Iterable[Question], sampling: Sampling, stop_token_ids: list[int]
    ) -> Iterator[list[tuple[Question, Draw]]]:
        for finished in super().answer(questions, sampling, stop_token_ids):
            self.asked += [(question.row, question.draw) for question, _ in finished]
            yield finished

    def close(self) -> None:
        pass


def scenarios(folder: Path) -> None:
    """Run in a child: every scenario that one engine can serve, each into a folder of its own."""
    predictions.Engine = Kept  # type: ignore[misc]
    model, rows = folder / "model", some_prompts(60)
    written = {
        "full": shards(folder / "s", rows),
        "reversed": shards(folder / "r", dict(reversed(rows.items()))),
        "alone": shards(folder / "a", {"row-017": rows["row-017"]}),
        "few": shards(folder / "f", dict(list(rows.items())[:20])),
        "edited": shards(folder / "e", rows | {"row-017": [1, 9, 9, 9], "row-100": rows["row-001"]}),
    }

    def run(name: str, which: str, pieces: str | None = None, **sampling: Any) -> None:
        Kept.kept and Kept.kept.asked.clear()
        shared = folder / pieces / "pieces" if pieces else None
        given = job(folder / name, written[which], model, shared, **sampling)
        counts = predictions.make(given)
        (folder / name / "counts.json").write_text(json.dumps(counts))
        asked = Kept.kept.asked if Kept.kept else []
        (folder / name / "run.json").write_text(json.dumps(record(given) | {"asked": sorted(asked)}))

    run("full", "full", max_tokens=40)
    run("reversed", "reversed", max_tokens=40)
    Kept.limit = 9
    run("limited", "full", max_tokens=40)
    Kept.limit = None
    run("alone", "alone", max_tokens=40)
    run("five", "full", max_tokens=40, n=5)
    run("more", "full", "full", max_tokens=40, n=5)
    run("edited", "edited", max_tokens=40)
    run("after-edit", "edited", "full", max_tokens=40)
    run("other-seed", "few", max_tokens=40, seed=8)
    run("greedy", "few", max_tokens=40, temperature=0)
    run("greedy-once", "few", "greedy", max_tokens=40, temperature=0, n=1)
    run("likely", "few", max_tokens=40, temperature=0, n=1, logprobs=True)
    run("stop", "few", max_tokens=40, stop=["a", "7b"])
    run("narrow", "few", max_tokens=40, top_p=0.8, top_k=5, repetition_penalty=1.2)
    (folder / "transformers.json").write_text(json.dumps(by_transformers(model, written["few"])))


def by_transformers(model: Path, rows: Path, tokens: int = 40) -> dict[str, Any]:
    """Greedy answers of transformers, with the two highest logits of each step."""
    import torch
    from transformers import Qwen2ForCausalLM

    reference, found = Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32), {}
    for row in predictions.read_rows(rows):
        options = {"do_sample": False, "temperature": None, "top_k": None, "repetition_penalty": 1.0}
        output = reference.generate(
            torch.tensor(row.input_ids[None].astype(np.int64)), max_new_tokens=tokens, eos_token_id=2,
            pad_token_id=0, return_dict_in_generate=True, output_logits=True, **options,
        )  # fmt: skip
        tops = [torch.topk(logits[0], 2).values.tolist() for logits in output.logits]
        new = output.sequences[0, len(row.input_ids) :].tolist()
        chosen = [logits[0].log_softmax(-1)[id].item() for logits, id in zip(output.logits, new, strict=True)]
        found[row.id] = {
            "token_ids": new, "gaps": [high - low for high, low in tops], "logprob": sum(chosen) / len(new)
        }  # fmt: skip
    return found


def answers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Row id -> draws, of a finished job."""
    lines = (folder / "out" / "predictions.jsonl").read_bytes().splitlines()
    return {record["id"]: record["draws"] for record in map(json.loads, lines)}
