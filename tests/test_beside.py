"""Base and adapter in vLLM, and what else a recipe may ask of it: what comes out, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny_predictions import answers, child, finished, tiny_model
from tiny_sources import LETTERS, adapter

from workflow.beside import rank_to_serve
from workflow.checkpoint import read_json
from workflow.errors import BuildError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("beside") / "model")


class TestRank:
    """What vLLM could serve wrongly, or as if there were no adapter, is refused before it is started."""

    @pytest.mark.parametrize(
        ("config", "rank"),
        [({}, 8), ({"r": 8}, 8), ({"r": 9, "use_rslora": True}, 16), ({"r": 1}, 1), ({"r": 300}, 320)],
    )
    def test_is_the_next_that_vllm_has(
        self, model: Path, tmp_path: Path, config: dict[str, Any], rank: int
    ) -> None:
        assert rank_to_serve(model, adapter(tmp_path / "a", model, **config)) == rank

    @pytest.mark.parametrize(
        ("config", "why"),
        [
            ({"use_dora": True}, "DoRA"),
            ({"modules_to_save": ["lm_head"]}, r"whole tensors such as lm_head.weight"),
            ({"bias": "all"}, r"whole tensors such as .*bias"),
            ({"target_modules": ["lm_head"]}, r"factors of lm_head.weight"),
            ({"alpha_pattern": {"q_proj": 3}}, r"a scaling of its own for .*q_proj"),
            ({"rank_pattern": {"v_proj": 2}}, r"a scaling of its own for .*v_proj"),
            ({"r": 600}, r"rank 600, over 512"),
        ],
        ids=str,
    )
    def test_or_there_is_none(self, model: Path, tmp_path: Path, config: dict[str, Any], why: str) -> None:
        with pytest.raises(BuildError, match=rf"adapter_config.json: vLLM serves no adapter with {why}"):
            rank_to_serve(model, adapter(tmp_path / "a", model, **config))

    def test_patterns_that_change_no_scaling(self, model: Path, tmp_path: Path) -> None:
        patterns = {"rank_pattern": {"v_proj": 20}, "alpha_pattern": {"v_proj": 40}}
        assert rank_to_serve(model, adapter(tmp_path / "a", model, **patterns)) == 32

    def test_names_must_be_the_model_s(self, model: Path, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        made = adapter(tmp_path / "a", model)
        path = made / "adapter_model.safetensors"
        tensors = load_file(path)
        save_file({re.sub(r"layers\.1", "layers.7", name): t for name, t in tensors.items()}, path)
        with pytest.raises(BuildError, match=r"7 of 14 changed weights are not in the base"):
            rank_to_serve(model, made)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output of every scenario."""
    folder = tmp_path_factory.mktemp("sources")
    tiny_model(folder / "model")
    finished(child("import tiny_sources\ntiny_sources.scenarios(Path(sys.argv[1]))", folder))
    return folder


def texts(made: Path, name: str) -> list[str]:
    return [draw["text"] for draws in answers(made / name).values() for draw in draws]


@pytest.mark.slow
class TestVllm:
    """vLLM on the CPU."""

    def test_base_and_adapter_answer_as_in_transformers(self, made: Path) -> None:
        assert answers(made / "tuned") == answers(made / "theirs")
        assert len(answers(made / "tuned")) == 20
        base, tuned = answers(made / "base"), answers(made / "tuned")
        assert sum(base[row] != tuned[row] for row in base) > 15

    def test_an_adapter_without_effect_is_found_out(self, made: Path) -> None:
        assert "in vLLM the adapter changes nothing of what the base answers" in refused(made)["bare"]
        assert not (made / "bare/out/predictions.jsonl").exists()

    def test_choices(self, made: Path) -> None:
        assert set(texts(made, "words")) <= {"no", "on"}
        assert all(draw["logprob"] <= 0 for draws in answers(made / "words").values() for draw in draws)
        for row, letters in LETTERS.items():
            found = {draw["text"] for draw in answers(made / "letters")[row]}
            assert found <= {letter.upper() for letter in letters}

    def test_patterns_and_schemas(self, made: Path) -> None:
        assert all(re.fullmatch("[0-9]{3}v", text) for text in texts(made, "pattern"))
        complete = [
            d for draws in answers(made / "schema").values() for d in draws if d["finish_reason"] == "stop"
        ]
        assert complete and all(isinstance(json.loads(draw["text"]), int) for draw in complete)

    def test_what_no_grammar_can_be_made_of(self, made: Path) -> None:
        assert re.match(r"sampling.constraint: row 'row-000': vLLM refuses it: ", refused(made)["ahead"])
        assert refused(made)["unwritable"].endswith("the model's tokens cannot write such an answer")

    def test_quantised_weights(self, made: Path) -> None:
        """Eight bits of random weights: most first tokens stay, log-probabilities move a little."""
        half, fp8 = answers(made / "half"), answers(made / "fp8")
        same = [half[row][0]["token_ids"][0] == fp8[row][0]["token_ids"][0] for row in half]
        assert sum(same) > 10
        moved = [half[row][0]["logprob"] - fp8[row][0]["logprob"] for row in half]
        assert any(moved) and sorted(map(abs, moved))[10] < 0.1
        assert "vLLM does not start" in refused(made)["float32-fp8"]
        assert read_json(made / "half/config.json")["dtype"] == "bfloat16"


def refused(made: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((made / "refused.json").read_text())
    return found
