"""Loss of known answers: against a bare transformers loop, and its statistics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scores import lines, write
from tiny_predictions import SYMBOLS, manifest, tiny_model
from token_rows import write_shard

from workflow.errors import BuildError
from workflow.products import likelihood, scores
from workflow.recipe.answers import Scoring
from workflow.recipe.leaf import slice_of
from workflow.results import Scores
from workflow.schemas import check
from workflow.show import table
from workflow.store.build import Job, Resources
from workflow.tokens import TokenRow


def token_rows(count: int = 12) -> list[TokenRow]:
    """Prompts and answers of several lengths; some with two trained stretches."""
    chance, rows = np.random.default_rng(2), []
    for number in range(count):
        ids = chance.integers(4, len(SYMBOLS), 6 + number).astype(np.int32)
        trained = (np.arange(len(ids)) >= 3 + number // 3).astype(np.uint8)
        trained[1] = number % 2
        rows.append(TokenRow(f"row-{number:02d}", ids, trained, 3))
    return rows


def job(tmp_path: Path, model: Path, rows: list[TokenRow]) -> Job:
    for name in ("shards", "out"):
        (tmp_path / name).mkdir()
    write_shard(tmp_path / "shards", 0, rows)
    inputs = {"shards": tmp_path / "shards", "model": model}
    return Job({}, inputs, {}, tmp_path / "out", tmp_path, tmp_path, {}, Resources(threads=1))


@pytest.mark.filterwarnings("ignore")
def test_losses_are_those_of_a_bare_loop(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    rows = token_rows()
    made = job(tmp_path, tiny_model(tmp_path / "model"), rows)
    counts = likelihood.make(made)
    found = lines(tmp_path / "out/likelihood.jsonl")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    for row, line in zip(rows, found, strict=True):
        ids = torch.tensor(row.input_ids.astype(int))[None]
        labels = torch.where(torch.tensor(row.trained) == 1, ids[0], -100)[None]
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels).loss.item()
        tokens = int(row.trained[1:].sum())
        assert line == {"id": row.id, "tokens": tokens, "loss": pytest.approx(mean * tokens, rel=1e-5)}
    total = sum(line["loss"] for line in found)
    assert counts == {
        "rows": 12, "tokens": sum(line["tokens"] for line in found),
        "loss": pytest.approx(total / sum(line["tokens"] for line in found), abs=1e-5),
    }  # fmt: skip
    before = (tmp_path / "out/likelihood.jsonl").read_bytes()
    likelihood.make(made)
    assert (tmp_path / "out/likelihood.jsonl").read_bytes() == before


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "qwen2", "dtype": "float32"}')
    with pytest.raises(BuildError, match=r"model: cannot be loaded"):
        likelihood.make(job(tmp_path, manifest(tmp_path / "model"), token_rows(2)))


def scored(tmp_path: Path, count: int = 40) -> tuple[Job, Any, Any]:
    """Scores of rows of which some have no loss, some belong to one problem."""
    chance = np.random.default_rng(4)
    rows: list[dict[str, Any]] = [{"id": f"{i:02d}", "prompt": {}, "gold": []} for i in range(count)]
    for i in range(0, count, 4):
        rows[i]["group"] = rows[i + 1]["group"] = f"g{i}"
    tokens = chance.integers(1, 9, count)
    losses = {role: tokens * chance.uniform(low, 2, count) for role, low in (("base_", 0.5), ("", 0.2))}
    inputs = {"rows": write(tmp_path / "rows/rows.jsonl", rows)}
    for role in ("draws", "greedy", "base"):
        said = [{"id": row["id"], "draws": [{"text": "x", "finish_reason": "stop"}]} for row in rows]
        inputs[role] = write(tmp_path / role / "predictions.jsonl", said)
    for role, loss in losses.items():
        made = [
            {"id": row["id"], "tokens": int(tokens[i]), "loss": loss[i]}
            for i, row in enumerate(rows)
            if i % 10
        ]
        inputs[f"{role}likelihood"] = write(tmp_path / f"{role}likelihood/likelihood.jsonl", made)
    (tmp_path / "out").mkdir()
    slice = slice_of(Scoring(metrics=["perplexity"], resamples=4000), "scores")
    return Job(slice, inputs, {}, tmp_path / "out", tmp_path, tmp_path), tokens, losses


def test_figures_are_those_of_a_naive_script(tmp_path: Path) -> None:
    made, tokens, losses = scored(tmp_path)
    scores.make(made)
    written = json.loads((tmp_path / "out/scores.json").read_text())
    found = Scores.model_validate(check("scores", written, "test")).likelihood
    assert found
    kept = [i for i in range(40) if i % 10]
    problems = [[i] for i in kept if i % 4 > 1]
    problems += [[j for j in (i, i + 1) if j % 10] for i in range(0, 40, 4)]
    assert (found.rows, found.problems, found.tokens) == (36, len(problems), tokens[kept].sum())
    places = np.random.default_rng(0).integers(0, len(problems), (4000, len(problems)))
    weights = np.array([tokens[p].sum() for p in problems])
    drawn = {}
    for role, system in (("base_", "base"), ("", "greedy")):
        sums = np.array([losses[role][p].sum() for p in problems])
        drawn[system] = sums[places].sum(axis=1) / weights[places].sum(axis=1)
        measured = found.systems[system]
        assert measured.loss == pytest.approx(sums.sum() / weights.sum())
        assert measured.perplexity == pytest.approx(math.exp(measured.loss))
        expected = np.quantile(drawn[system], [0.025, 0.975])
        assert (measured.low, measured.high) == pytest.approx(expected, abs=0.02)
    test = found.tests["greedy_vs_base"]
    gains = np.quantile(drawn["greedy"] - drawn["base"], [0.025, 0.975])
    assert (test.low, test.high) == pytest.approx(gains, abs=0.02)
    assert test.difference == pytest.approx(found.systems["greedy"].loss - found.systems["base"].loss)
    items = {item["id"]: item["values"]["perplexity"] for item in lines(tmp_path / "out/items.jsonl")}
    assert sorted(items) == [f"{i:02d}" for i in kept]
    assert items["05"]["greedy"] == pytest.approx(math.exp(-losses[""][5] / tokens[5]))
    text = table(Scores.model_validate(written))
    assert "known answers" in text and "tuning: loss of this model less that of the base model is -" in text


def test_two_models_must_have_seen_the_same_tokens(tmp_path: Path) -> None:
    made, _, _ = scored(tmp_path)
    path = made.inputs["base_likelihood"] / "likelihood.jsonl"
    write(path, lines(path)[1:])
    with pytest.raises(BuildError, match="about different tokens; build again"):
        scores.make(made)


def test_the_recipe_asks_for_it(tmp_path: Path) -> None:
    from workspace import RECIPE, folder

    place = folder(tmp_path / "w")
    place.path("recipes/likely.yaml").write_text(RECIPE.replace("[accuracy]", "[accuracy, perplexity]"))
    graph = place.graph("likely")
    inputs = graph.node("scores").inputs
    assert {role: set(inputs[role].inputs) for role in ("likelihood", "base_likelihood")} == {
        "likelihood": {"shards", "model"},
        "base_likelihood": {"shards", "model"},
    }
    shards = inputs["likelihood"].inputs["shards"]
    assert (
        shards.slice["split"] == "train" and shards.inputs["rows"].address == graph.node("rows_test").address
    )
    assert inputs["base_likelihood"].inputs["shards"].address == shards.address
    assert inputs["likelihood"].inputs["model"].product == "merged"
    assert "likelihood" not in place.graph("small").products
