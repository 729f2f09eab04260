"""The whole chain with the real libraries: a tiny recipe from rows to a report, then killed half-way."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Family
from workspace import ROOT, Folder, command, environment, folder

pytestmark = pytest.mark.slow

NAMES = ("predictions.jsonl", "voted.jsonl", "scores.json", "report.html", "adapter", "merged")
TARGETS = [f"results/small/{name}" for name in NAMES]
VOTED = "results/small/voted.jsonl"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """`small` built without a break."""
    place = folder(tmp_path_factory.mktemp("reference") / "it", base=256, train=64, test=16)
    place.edit("small.yaml", "processes: 1", "processes: 2")
    place.build(*TARGETS)
    return place


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def product(place: Folder, name: str) -> Path:
    """The folder of a product of `small`."""
    node = place.graph("small").node(name)
    receipt = place.store.built(node.product, node.address)
    assert receipt
    return place.store.folder(node.product, receipt.key)


def test_nothing_is_left_to_do(reference: Folder) -> None:
    assert "Nothing to be done" in reference.build(*TARGETS)


def test_published_files_fit_their_schemas(reference: Folder) -> None:
    from jsonschema import Draft202012Validator

    schemas = {
        name: json.loads((ROOT / f"schemas/{name}.schema.json").read_text()) for name in ("voted", "scores")
    }
    for line in lines(reference.path(VOTED)):
        Draft202012Validator(schemas["voted"]).validate(line)
    scores = json.loads(reference.path("results/small/scores.json").read_text())
    Draft202012Validator(schemas["scores"]).validate(scores)
    for name in ("adapter", "merged"):
        assert (reference.path("results/small", name) / "manifest.json").is_file()
    assert "</html>" in reference.path("results/small/report.html").read_text()


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # PEFT 0.21 asks for it
def test_base_and_adapter_are_the_merged_model(reference: Folder) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(product(reference, "model"), dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(reference.path("results/small/merged"), dtype=torch.float32)
    ids = torch.tensor([[draw["token_ids"] for draw in lines(reference.path(TARGETS[0]))[0]["draws"]][0]])
    with torch.no_grad():
        plain = base(ids).logits
        tuned = PeftModel.from_pretrained(base, reference.path("results/small/adapter"))(ids).logits
        together = merged(ids).logits
    torch.testing.assert_close(tuned, together, rtol=1e-4, atol=1e-4)
    assert (plain - together).abs().max() > 1e-2


def test_draws_differ_from_each_other_and_from_the_base(reference: Folder) -> None:
    drawn = lines(reference.path("results/small/predictions.jsonl"))
    assert len(drawn) == 16
    assert all(len({draw["text"] for draw in line["draws"]}) == 3 for line in drawn)
    greedy, base = (lines(product(reference, name) / "predictions.jsonl") for name in ("greedy", "base"))
    assert greedy != base


def letter(text: str) -> str | None:
    """Another reading of the recipe's pattern: the last of A to D, or nothing."""
    return next((character for character in reversed(text) if character in "ABCD"), None)


def majority(answers: list[str | None]) -> str | None:
    """Most votes; among equals the first drawn."""
    votes = Counter(answer for answer in answers if answer)
    return max(votes, key=lambda answer: (votes[answer], -answers.index(answer))) if votes else None


def golds() -> dict[str, str]:
    """Problem -> answer, from the file that the generator wrote."""
    problems = lines(ROOT / "recipes/data/tiny-logic/test.jsonl")[:16]
    return {problem["id"]: problem["questions"][0]["answer"] for problem in problems}


def test_votes_and_accuracies_follow_from_the_predictions(reference: Folder) -> None:
    gold = golds()
    drawn = {
        line["id"]: [letter(d["text"]) for d in line["draws"]] for line in lines(reference.path(TARGETS[0]))
    }
    right = {id: next(answer for problem, answer in gold.items() if id.startswith(problem)) for id in drawn}
    voted = {line["id"]: line for line in lines(reference.path(VOTED))}
    assert {id: line["answer"] for id, line in voted.items()} == {id: majority(a) for id, a in drawn.items()}
    assert any(line["answer"] for line in voted.values())
    accuracies = {
        "voted": [majority(answers) == right[id] for id, answers in drawn.items()],
        "single": [answers[0] == right[id] for id, answers in drawn.items()],
        "draws": [answer == right[id] for id, answers in drawn.items() for answer in answers],
    }
    for name in ("greedy", "base"):
        found = lines(product(reference, name) / "predictions.jsonl")
        accuracies[name] = [letter(line["draws"][0]["text"]) == right[line["id"]] for line in found]
    accuracies["majority_class"] = [
        answer == Counter(right.values()).most_common(1)[0][0] for answer in right.values()
    ]
    scores = json.loads(reference.path("results/small/scores.json").read_text())
    for name, hits in accuracies.items():
        assert scores["systems"][name]["accuracy"] == pytest.approx(sum(hits) / len(hits), abs=1e-12), name
    better = sum(v and not s for v, s in zip(accuracies["voted"], accuracies["single"], strict=True))
    assert scores["tests"]["voted_vs_single"]["better"] == better


def test_a_model_without_a_head_predicts_otherwise(reference: Folder, tmp_path: Path) -> None:
    """Predictions come from these weights: a copy of merged with its (tied) head set to zero differs."""
    import torch
    from safetensors.torch import load_file, save_file

    place = folder(tmp_path / "it", test=4)
    model = place.path("recipes/models/zeroed")
    shutil.copytree(
        reference.path("results/small/merged"), model, ignore=shutil.ignore_patterns("manifest.json")
    )
    (weights,) = model.glob("*.safetensors")
    weights.chmod(0o644)
    tensors = load_file(weights)
    head = "lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"
    save_file({**tensors, head: torch.zeros_like(tensors[head])}, weights, metadata={"format": "pt"})
    recipe = place.path("recipes/small.yaml").read_text().replace("{recipe: small-base}", "models/zeroed")
    recipe = re.sub(r"( *train|tuning|training|deepspeed): .*\n", "", recipe).replace(
        "compare: [base]", "compare: []"
    )
    place.path("recipes/small.yaml").write_text(recipe)
    place.build(TARGETS[0])
    before = {line["id"]: line["draws"] for line in lines(reference.path(TARGETS[0]))}
    for line in lines(place.path(TARGETS[0])):
        assert line["draws"] != before[line["id"]]


@pytest.fixture(scope="module")
def second(reference: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A copy in which the tuned model and all behind it are yet to be made."""
    place = reference.copy(tmp_path_factory.mktemp("second") / "it")
    products = ("adapter", "merged", "predictions", "voted")
    doomed = [path for name in products for path in _traces(place, name)]
    for path in doomed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(place.path("results"))
    shutil.rmtree(place.store.pieces)
    return place


def _traces(place: Folder, name: str) -> list[Path]:
    node, store = place.graph("small").node(name), place.store
    files = [store.file(node.product, node.address, kind) for kind in (".json", ".stamp")]
    return [product(place, name), *files]


def kill_when(place: Folder, ready: Callable[[], bool], wanted: int) -> dict[int, str]:
    """Start the build of voted.jsonl and SIGKILL Snakemake alone as soon as `ready`: nothing may live on."""
    build = Family(command(VOTED), place.root, environment())
    assert build.wait_until(ready), build.log.read_text()
    family = build.kill()
    assert len(family) >= wanted, family
    return family


def test_a_killed_build_goes_on_to_the_same_bytes(reference: Folder, second: Folder) -> None:
    """Snakemake alone is killed: once in the middle of training by two ranks, once among predictions."""
    work = second.path("store/work")
    family = kill_when(second, lambda: any(work.glob("*/world-*/checkpoint-*/tunemake.json")), wanted=5)
    assert sum("-m workflow.training.program" in line for line in family.values()) == 3  # torchrun, two ranks
    assert not any(_exists(second, "adapter"))
    drawn = second.store.pieces / "predictions"
    kill_when(second, lambda: any(path.stat().st_size for path in drawn.glob("*/*.jsonl")), wanted=2)
    assert all(_exists(second, "adapter")) and not any(_exists(second, "predictions"))
    assert "adapter: continues from checkpoint-" in second.path("family.log").read_text()
    printed = second.build(VOTED, "results/small/adapter")
    assert re.search(r"predictions: [1-9]\d* of 48 draws were made before", printed)
    for name in ("adapter", "merged", "predictions"):
        assert manifest(second, name) == manifest(reference, name), name
    for name in ("voted.jsonl", "adapter/adapter_model.safetensors"):
        assert (
            second.path("results/small", name).read_bytes()
            == reference.path("results/small", name).read_bytes()
        )
    assert not any(work.iterdir())
    assert "Nothing to be done" in second.build(VOTED, "results/small/adapter")


def _exists(place: Folder, name: str) -> list[bool]:
    node = place.graph("small").node(name)
    return [place.store.file(node.product, node.address, kind).exists() for kind in (".json", ".stamp")]


def manifest(place: Folder, name: str) -> bytes:
    return (product(place, name) / "manifest.json").read_bytes()
