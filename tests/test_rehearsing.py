"""Rehearsals with the real libraries: every shipped recipe to voted.jsonl, and Qwen's own tokens in them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from qwen import write_tokenizer
from test_rehearsal import SHIPPED
from workspace import ROOT, Folder, command, environment

from workflow.schemas import check
from workflow.store.files import read_json
from workflow.tokens import read_rendering, read_rows

pytestmark = pytest.mark.slow

# Its config.json as published, where it differs from Qwen2Config. Not checked offline.
CONFIG = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 5120, "vocab_size": 152064,
    "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8,
    "max_position_embeddings": 32768, "rope_theta": 1000000.0, "tie_word_embeddings": False,
    "bos_token_id": 151643, "eos_token_id": 151645, "torch_dtype": "bfloat16",
}  # fmt: skip
ALONE = [f"{rule}=1" for rule in ("rows", "shards", "adapter", "merged", "predictions")]
VOTED = [name for name in SHIPPED if not name.startswith("tiny-")]  # those are built as they are elsewhere
GOLDEN = {  # of shared/tutorials.md, section 6: a user's turn and an answer
    ("3的阶乘是多少？", "答案是：A"): (
        [151644, 872, 198, 18, 9370, 99736, 100252, 111558, 11319, 151645, 198],
        [102349, 20412, 5122, 32, 151645],
    ),
    ("你好", "Hello world"): ([151644, 872, 198, 108386, 151645, 198], [9707, 1879, 151645]),
}
SYSTEM = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198]
OPENED = [151644, 77091, 198]


def hub(root: Path, size: int | None = None) -> Path:
    """A hub's cache with configuration and tokenizer of Qwen2.5-14B-Instruct, or the first of its tokens."""
    snapshot = root / "models--Qwen--Qwen2.5-14B-Instruct/snapshots" / ("a" * 40)
    first = write_tokenizer(snapshot, size)
    fewer = {"vocab_size": first + 3, "bos_token_id": first, "eos_token_id": first + 2} if size else {}
    (snapshot / "config.json").write_text(json.dumps(CONFIG | fewer))
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    return root


def folder(root: Path) -> Folder:
    root.mkdir()
    for name in ("Snakefile", "rules", "profiles", "recipes"):
        source = ROOT / name
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
    return Folder(root)


def test_every_recipe_to_its_votes(tmp_path: Path) -> None:
    """One command for all of them: what they share is made once, and two jobs at a time load libraries."""
    place = folder(tmp_path / "it")
    targets = [f"results/rehearsal/{name}/voted.jsonl" for name in VOTED]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub(tmp_path / "hub", 4000))}
    done = subprocess.run(
        command(*targets, "--cores", "2", "--keep-going", "--set-threads", *ALONE),
        cwd=place.root, env=environment() | offline, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for target in targets:
        voted = [json.loads(line) for line in place.path(target).read_text().splitlines()]
        assert voted
        for line in voted:
            check("voted", line, place.path(target))


def test_qwens_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub(tmp_path / "hub")))
    place = folder(tmp_path / "it")
    rows = [
        {"id": f"{i}-{n}", "conversations": [{"from": "user", "value": q}, {"from": "assistant", "value": a}]}
        for n in range(8)
        for i, (q, a) in enumerate(GOLDEN)
    ]
    place.path("recipes/data/identity/conversations.json").write_text(json.dumps(rows))
    place.make("rehearsal/qwen14b-identity", "shards_train", "shards_test", "model")
    made = {name: product(place, name) for name in ("shards_train", "shards_test", "model", "tokenizer")}
    seen = set()
    for row in read_rows(made["shards_train"]):
        asked, answer = list(GOLDEN.values())[int(row.id[0])]
        assert row.input_ids.tolist() == SYSTEM + asked + OPENED + answer
        assert row.trained.tolist() == [0] * (len(SYSTEM + asked) + 3) + [1] * len(answer)
        seen.add(row.id[0])
    assert seen == {"0", "1"}
    for row in read_rows(made["shards_test"]):
        asked, _ = list(GOLDEN.values())[int(row.id[0])]
        assert row.input_ids.tolist() == SYSTEM + asked + OPENED
    assert read_rendering(made["shards_train"]).stop_token_ids == [151643, 151645]
    config: dict[str, Any] = read_json(made["model"] / "config.json")
    assert (config["vocab_size"], config["hidden_size"], config["num_hidden_layers"]) == (152064, 64, 2)
    assert config["max_position_embeddings"] == CONFIG["max_position_embeddings"]


def product(place: Folder, name: str) -> Path:
    node = place.graph("rehearsal/qwen14b-identity").node(name)
    receipt = place.store.built(node.product, node.address)
    assert receipt
    return place.store.folder(node.product, receipt.key)
