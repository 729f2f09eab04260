"""The product predictions: its limits, its context, and what it does when nothing is to be asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_predictions import context, job, manifest, model_config, record, shards

from workflow.draws import Draws, Wanted, prompt_digest
from workflow.engine import Draw, Question, seed_of
from workflow.errors import BuildError
from workflow.products import predictions
from workflow.products.predictions import context_length
from workflow.survey import Survey, look_through, prompted, sampling_of
from workflow.tokens import Rendering, write_rendering

PROMPTS = {row: prompt_digest([1, number]) for number, row in enumerate("abcd")}


def looked_through(tmp_path: Path, prompts: dict[str, list[int]]) -> Survey:
    rows = shards(tmp_path / "s", prompts, rows_per_shard=2)
    asked = job(tmp_path / "j", rows, tmp_path)
    return look_through(prompted(asked, sampling_of(asked)), rows)


class TestLimits:
    """The context that vLLM is given."""

    survey = Survey(PROMPTS, "b", 100)

    def test_is_what_the_longest_row_needs(self, tmp_path: Path) -> None:
        model = model_config(tmp_path / "m", max_position_embeddings=116)
        assert context_length(model, self.survey, 16, None) == 116
        assert context_length(model, self.survey, 10, 112) == 112

    def test_longest_row_is_named(self, tmp_path: Path) -> None:
        model = model_config(tmp_path / "m", max_position_embeddings=115)
        with pytest.raises(BuildError, match=r"row 'b'.*116 tokens.*reaches 115.*lower sampling.max_tokens"):
            context_length(model, self.survey, 16, None)

    def test_wanted_length_never_cuts_answers(self, tmp_path: Path) -> None:
        model = model_config(tmp_path / "m", max_position_embeddings=500)
        with pytest.raises(BuildError, match=r"row 'b'.*execution.max_model_len is 115; raise it"):
            context_length(model, self.survey, 16, 115)
        with pytest.raises(BuildError, match=r"execution.max_model_len is 501: 501 tokens"):
            context_length(model, self.survey, 16, 501)

    def test_empty_prompt(self, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="row 'b' has an empty prompt"):
            looked_through(tmp_path, {"a": [1], "b": []})

    def test_survey(self, tmp_path: Path) -> None:
        found = looked_through(tmp_path, {"a": [1], "b": [1, 2, 3], "c": [4, 5]})
        assert (found.longest, found.longest_tokens) == ("b", 3)
        assert found.prompts["c"] == prompt_digest([4, 5])


def test_without_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no second way to predict."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BuildError, match=r"pip install '\.\[cpu\]' or '\.\[gpu\]'"):
        predictions.make(job(tmp_path / "j", tmp_path, tmp_path))


def no_engine(_: object) -> None:
    """Stands where the engine would start."""
    raise AssertionError("the engine must not start")


def test_nothing_to_ask_starts_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows, or all of them answered before, by this job or another; fewer draws than there are."""
    monkeypatch.setattr(predictions, "Engine", no_engine)
    monkeypatch.setattr(predictions, "require_vllm", lambda: None)
    model = model_config(tmp_path / "m")
    none = job(tmp_path / "none", shards(tmp_path / "s0", {}), model)
    assert predictions.make(none)["rows"] == 0
    assert (none.out / "predictions.jsonl").read_bytes() == b""

    done = job(tmp_path / "done", shards(tmp_path / "s", {"a": [1, 0], "b": [1, 1]}), model, n=3)
    short, cut, long = Draw("", [2], "stop"), Draw("x", [5], "length"), Draw("yz", [5, 6, 2], "stop")
    with Draws(context(done), "another-key", Wanted(PROMPTS, 3, 7)) as draws:
        for row, answers in {"b": [short, cut, long], "a": [long] * 3}.items():
            for number, draw in enumerate(answers):
                draws.add(Question(row, number, [], seed_of(7, row, number)), draw)
    counts = predictions.make(done)
    assert counts == {
        "rows": 2, "draws": 6, "finish_length": 1, "prompt_tokens": 4, "completion_tokens": 14, "empty": 1
    }  # fmt: skip
    lines = [json.loads(line) for line in (done.out / "predictions.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b"]
    assert lines[1]["prompt_tokens"] == 2
    last = {"text": "yz", "tokens": 3, "token_ids": [5, 6, 2], "finish_reason": "stop"}
    assert lines[1]["draws"][2] == last
    assert (record(done)["reused_draws"], record(done)["generated_draws"]) == (6, 0)
    fewer = job(tmp_path / "fewer", tmp_path / "s", model, done.pieces, n=2)
    assert predictions.make(fewer)["draws"] == 4


def test_a_context_is_all_but_rows_and_the_number_of_draws(tmp_path: Path) -> None:
    model, rows = model_config(tmp_path / "m"), shards(tmp_path / "s", {"a": [1]})
    first = predictions.context(job(tmp_path / "0", rows, model))
    assert predictions.context(job(tmp_path / "1", shards(tmp_path / "t", {"b": [2]}), model, n=5)) == first
    others: list[dict[str, Any]] = [{"temperature": 0.9}, {"stop": ["x"]}, {"max_tokens": 17}, {"seed": 8}]
    found = [
        predictions.context(job(tmp_path / f"o{i}", rows, model, **other)) for i, other in enumerate(others)
    ]
    (model / "tokenizer.json").write_text("{}")
    manifest(model)
    found.append(predictions.context(job(tmp_path / "2", rows, model)))
    write_rendering(rows, Rendering(stop_token_ids=[2, 5], stop=[], pad_token_id=0))
    found.append(predictions.context(job(tmp_path / "3", rows, model)))
    assert len({first, *found}) == 7
