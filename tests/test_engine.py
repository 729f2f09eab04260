"""The engine: seeds, limits, the dtype, and vLLM itself on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_predictions import ROOT, SYMBOLS, answers, child, finished, model_config, tiny_model

from workflow.engine import seed_of
from workflow.errors import BuildError
from workflow.vllm_start import dtype_of, position_limit

SPECIAL = (0, 2, 3)  # skipped in texts; to the tokenizer <start> is a word


def test_a_seed_depends_on_seed_row_and_draw_only() -> None:
    assert seed_of(0, "a", 0) == 1412651625644010286
    assert seed_of(0, "a", 4) == 1412651625644010290
    assert len({seed_of(seed, row, draw) for seed in range(20) for row in "abcd" for draw in (0, 1)}) == 160
    assert seed_of(1, "1", 0) != seed_of(11, "", 0)


def test_a_seed_fits_int64_with_every_draw() -> None:
    assert all(0 <= seed_of(0, str(i), 0) < 2**63 - 256 for i in range(1000))


def test_scaled_positions_are_left_to_vllm(tmp_path: Path) -> None:
    scaled = {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}
    assert position_limit(model_config(tmp_path / "m", **scaled)) is None
    nested = {"text_config": {"max_position_embeddings": 9}}
    assert position_limit(model_config(tmp_path / "n", **nested)) == 9


class TestDtype:
    """The checkpoint's dtype."""

    @pytest.mark.parametrize("config", [{"dtype": "float32"}, {"torch_dtype": "float32"}])
    def test_is_the_configuration_s(self, tmp_path: Path, config: dict[str, str]) -> None:
        assert dtype_of(model_config(tmp_path / "m", **config)) == "float32"

    def test_or_the_weights(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        model = model_config(tmp_path / "m")
        save_file({"x": np.zeros(2, np.float16)}, model / "model.safetensors")
        assert dtype_of(model) == "float16"
        save_file({"x": np.zeros(2, np.float16), "y": np.zeros(2, np.int8)}, model / "model.safetensors")
        with pytest.raises(BuildError, match="add `dtype`"):
            dtype_of(model)


def test_importing_loads_nothing_heavy() -> None:
    """Drawing the graph imports every product."""
    code = "import sys, workflow.engine as e; sys.exit(bool({'torch', 'vllm'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output of every scenario."""
    folder = tmp_path_factory.mktemp("served")
    tiny_model(folder / "model")
    finished(child("t.scenarios(Path(sys.argv[1]))", folder))
    return folder


def same(served: Path, one: str, two: str) -> bool:
    """Whether two scenarios gave the same bytes and counts."""
    names = ("out/predictions.jsonl", "counts.json")
    return all((served / one / name).read_bytes() == (served / two / name).read_bytes() for name in names)


@pytest.mark.slow
class TestEngine:
    """vLLM on the CPU."""

    def test_draws_differ(self, served: Path) -> None:
        full = answers(served / "full")
        differing = [row for row in full.values() if len({tuple(draw["token_ids"]) for draw in row}) == 3]
        assert len(differing) > 50  # of 60: two draws may both end at once
        assert answers(served / "other-seed")["row-001"] != full["row-001"]

    def test_greedy_draws_are_equal(self, served: Path) -> None:
        assert all(row == [row[0]] * 3 for row in answers(served / "greedy").values())

    def test_greedy_is_what_transformers_does(self, served: Path) -> None:
        reference = json.loads((served / "transformers.json").read_text())
        for row, greedy in answers(served / "greedy").items():
            ours, theirs = greedy[0]["token_ids"], reference[row]["token_ids"]
            pairs = zip(ours, theirs, reference[row]["gaps"], strict=False)
            parted = next((gap for a, b, gap in pairs if a != b), None)
            assert ours == theirs or (parted is not None and parted < 1e-4)

    def test_log_probabilities_are_those_of_transformers(self, served: Path) -> None:
        reference = json.loads((served / "transformers.json").read_text())
        plain = answers(served / "greedy-once")
        for row, (draw,) in answers(served / "likely").items():
            logprob = draw.pop("logprob")
            assert [draw] == plain[row]
            same = draw["token_ids"] == reference[row]["token_ids"]
            assert not same or logprob == pytest.approx(reference[row]["logprob"], abs=2e-4)
            assert logprob == round(logprob, 4) < 0

    def test_five_draws_keep_the_first_three(self, served: Path) -> None:
        full, five = answers(served / "full"), answers(served / "five")
        assert {row: five[row][:3] for row in full} == full

    def test_more_draws_ask_for_the_missing_ones_only(self, served: Path) -> None:
        more = json.loads((served / "more/run.json").read_bytes())
        assert more["asked"] == sorted([row, draw] for row in answers(served / "full") for draw in (3, 4))
        assert (more["reused_draws"], more["generated_draws"]) == (180, 120)
        assert same(served, "more", "five")

    def test_an_edited_row_is_predicted_alone(self, served: Path) -> None:
        run = json.loads((served / "after-edit/run.json").read_bytes())
        assert run["asked"] == [[row, draw] for row in ("row-017", "row-100") for draw in range(3)]
        assert same(served, "after-edit", "edited") and not same(served, "edited", "full")

    def test_one_greedy_draw_is_enough_for_all(self, served: Path) -> None:
        assert len(json.loads((served / "greedy/run.json").read_bytes())["asked"]) == 20
        once, thrice = answers(served / "greedy-once"), answers(served / "greedy")
        assert json.loads((served / "greedy-once/run.json").read_bytes())["asked"] == []
        assert {row: draws * 3 for row, draws in once.items()} == thrice

    def test_order_and_company_do_not_matter(self, served: Path) -> None:
        full = (served / "full/out/predictions.jsonl").read_bytes()
        assert (served / "limited/out/predictions.jsonl").read_bytes() == full
        backwards = (served / "reversed/out/predictions.jsonl").read_bytes()
        assert backwards.splitlines()[::-1] == full.splitlines()
        assert (served / "alone/out/predictions.jsonl").read_bytes().strip() in full.splitlines()

    def test_text_is_the_tokens_without_the_stop(self, served: Path) -> None:
        for draw in (draw for row in answers(served / "full").values() for draw in row):
            ids = draw["token_ids"]
            assert draw["tokens"] == len(ids) <= 40
            assert (ids[-1] == 2) == (draw["finish_reason"] == "stop")
            assert draw["text"] == "".join(SYMBOLS[i] for i in ids if i not in SPECIAL)

    def test_stop_strings(self, served: Path) -> None:
        stopped = [draw for row in answers(served / "stop").values() for draw in row]
        assert not any("a" in draw["text"] or "7b" in draw["text"] for draw in stopped)
        assert any(draw["finish_reason"] == "stop" and draw["token_ids"][-1] != 2 for draw in stopped)

    def test_counts(self, served: Path) -> None:
        for name in ("full", "greedy", "stop"):
            found = [draw for row in answers(served / name).values() for draw in row]
            counts = json.loads((served / name / "counts.json").read_text())
            ended = sum(draw["finish_reason"] == "length" for draw in found)
            assert counts["finish_length"] == ended > 0
            assert counts["completion_tokens"] == sum(draw["tokens"] for draw in found)

    def test_narrower_sampling_has_an_effect(self, served: Path) -> None:
        narrow, full = answers(served / "narrow"), answers(served / "full")
        assert all(narrow[row] != full[row] for row in narrow)
