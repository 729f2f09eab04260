"""The product predictions: its record file, its seeds and limits, and vLLM itself on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from token_rows import write_rendering, write_shard

from workflow import engine
from workflow.engine import Draw, dtype_of, position_limit, seed_of
from workflow.errors import BuildError
from workflow.products import predictions
from workflow.products.predictions import Records, Survey, context_length, look_through, prompt_digest
from workflow.store.build import Job, Resources
from workflow.tokens import Rendering, TokenRow

SAMPLING = {"n": 3, "temperature": 1.0, "max_tokens": 16, "seed": 7}
ROOT = Path(__file__).parents[1]
SYMBOLS = ["<pad>", "<start>", "<end>", "<unk>", *"abcdefghijklmnopqrstuvwxyz0123456789"]
SPECIAL = (0, 2, 3)  # skipped in texts; to the tokenizer <start> is a word


def shards(folder: Path, prompts: dict[str, list[int]], rows_per_shard: int = 100) -> Path:
    """A shards folder with these prompts, in this order."""
    folder.mkdir(parents=True)
    rows = [
        TokenRow(id, np.array(ids, np.int32), np.zeros(len(ids), np.uint8), len(ids))
        for id, ids in prompts.items()
    ]
    for number, begin in enumerate(range(0, len(rows), rows_per_shard)):
        write_shard(folder, number, rows[begin : begin + rows_per_shard])
    write_rendering(folder, Rendering(stop_token_ids=[2], pad_token_id=0))
    return folder


def job(folder: Path, rows: Path, model: Path, **sampling: Any) -> Job:
    """A job with its own `out`, and a `work` that a second attempt finds again."""
    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    inputs = {"shards": rows, "model": model}
    return Job(
        {"sampling": SAMPLING | sampling},
        inputs,
        {},
        out,
        work,
        out.parent / "pieces",
        {},
        Resources(threads=2),
    )


def model_config(folder: Path, **config: Any) -> Path:
    """A model folder with nothing but a configuration."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def draws(text: str, n: int = 3) -> list[Draw]:
    """The same draw n times."""
    return [Draw(text, [5, 6, 2], "stop")] * n


PROMPTS = {row: prompt_digest([1, number]) for number, row in enumerate("abcd")}


class TestRecords:
    """The file of finished rows."""

    def test_comes_back(self, tmp_path: Path) -> None:
        with Records(tmp_path / "r", PROMPTS, 3) as records:
            records.append("b", draws("行\u2028\n"))
            records.append("a", draws("x"))
        with Records(tmp_path / "r", PROMPTS, 3) as records:
            assert records.places.keys() == {"a", "b"}
            wanted = {"text": "行\u2028\n", "token_ids": [5, 6, 2], "finish_reason": "stop"}
            assert records.draws("b") == [wanted] * 3

    @pytest.mark.parametrize("cut", [1, 2, 40])
    def test_torn_last_line_is_cut_off_and_said(
        self, tmp_path: Path, cut: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "r"
        with Records(path, PROMPTS, 3) as records:
            records.append("a", draws("x"))
            records.append("b", draws("y"))
        path.write_bytes(path.read_bytes()[:-cut])
        with Records(path, PROMPTS, 3) as records:
            assert records.places.keys() == {"a"}
            records.append("b", draws("z"))
            assert records.draws("b")[0]["text"] == "z"
        assert "cut off" in capfd.readouterr().err
        assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "b"]

    @pytest.mark.parametrize(
        "garbage", [b"\0" * 50, b"\0" * 50 + b"\n", b'{"id": "b"}\n', b"[]\n", b"\xff\n"]
    )
    def test_garbage_after_a_power_cut_is_cut_off(self, tmp_path: Path, garbage: bytes) -> None:
        path = tmp_path / "r"
        with Records(path, PROMPTS, 3) as records:
            records.append("a", draws("x"))
        whole = path.read_bytes()
        path.write_bytes(whole + garbage)
        with Records(path, PROMPTS, 3) as records:
            assert records.places.keys() == {"a"}
        assert path.read_bytes() == whole

    def test_foreign_rows_do_not_count(self, tmp_path: Path) -> None:
        with Records(tmp_path / "r", {**PROMPTS, "z": "0"}, 3) as records:
            for row in ("z", "a", "b", "c"):
                records.append(row, draws("x", 2 if row == "c" else 3))
        changed = {**PROMPTS, "b": prompt_digest([9])}
        with Records(tmp_path / "r", changed, 3) as records:
            assert records.places.keys() == {"a"}

    def test_the_first_of_two_records_counts(self, tmp_path: Path) -> None:
        with Records(tmp_path / "r", PROMPTS, 3) as records:
            records.append("a", draws("first"))
            records.append("a", draws("second"))
            assert records.draws("a")[0]["text"] == "first"

    def test_flushes_once_a_second(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[int] = []
        with Records(tmp_path / "r", PROMPTS, 3) as records:
            monkeypatch.setattr(os, "fsync", synced.append)
            records.append("a", draws("x"))
            records.sync_if_due()
            assert not synced
            later = time.monotonic() + 1.5
            monkeypatch.setattr(time, "monotonic", lambda: later)
            records.sync_if_due()
            records.sync_if_due()
            assert len(synced) == 1
            monkeypatch.undo()

    def test_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Records(tmp_path / "r", PROMPTS, 3) as records:
            monkeypatch.setattr(os, "write", lambda _file, data: len(data) - 1)
            with pytest.raises(BuildError, match="disk is full"):
                records.append("a", draws("x"))


class TestSeeds:
    """Where a draw's randomness comes from."""

    def test_depends_on_seed_and_row_only(self) -> None:
        assert seed_of(0, "a") == 1412651625644010286
        assert len({seed_of(seed, row) for seed in range(20) for row in PROMPTS}) == 80
        assert seed_of(1, "1") != seed_of(11, "")

    def test_fits_int64_with_every_draw(self) -> None:
        assert all(0 <= seed_of(0, str(i)) < 2**63 - 256 for i in range(1000))


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

    def test_scaled_positions_are_left_to_vllm(self, tmp_path: Path) -> None:
        scaled = {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}
        assert position_limit(model_config(tmp_path / "m", **scaled)) is None
        nested = {"text_config": {"max_position_embeddings": 9}}
        assert position_limit(model_config(tmp_path / "n", **nested)) == 9

    def test_empty_prompt(self, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="row 'b' has an empty prompt"):
            look_through(shards(tmp_path / "s", {"a": [1], "b": []}))

    def test_survey(self, tmp_path: Path) -> None:
        found = look_through(
            shards(tmp_path / "s", {"a": [1], "b": [1, 2, 3], "c": [4, 5]}, rows_per_shard=2)
        )
        assert (found.longest, found.longest_tokens) == ("b", 3)
        assert found.prompts["c"] == prompt_digest([4, 5])


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


def test_without_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no second way to predict."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BuildError, match=r"pip install '\.\[cpu\]' or '\.\[gpu\]'"):
        predictions.make(job(tmp_path / "j", tmp_path, tmp_path))


def no_engine(_: object) -> None:
    """Stands where the engine would start."""
    raise AssertionError("the engine must not start")


def test_nothing_to_ask_starts_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rows, or all of them answered before."""
    monkeypatch.setattr(predictions, "Engine", no_engine)
    monkeypatch.setattr(predictions, "require_vllm", lambda: None)
    none = job(tmp_path / "none", shards(tmp_path / "s0", {}), tmp_path)
    assert predictions.make(none)["rows"] == 0
    assert (none.out / "predictions.jsonl").read_bytes() == b""

    done = job(tmp_path / "done", shards(tmp_path / "s", {"a": [1, 0], "b": [1, 1]}), tmp_path)
    with Records(done.work / "records.jsonl", PROMPTS, 3) as records:
        records.append(
            "b", [Draw("", [2], "stop"), Draw("x", [5], "length"), Draw("yz", [5, 6, 2], "stop", 2)]
        )
        records.append("a", draws("x"))
    counts = predictions.make(done)
    assert counts == {
        "rows": 2, "draws": 6, "finish_length": 1, "prompt_tokens": 4, "completion_tokens": 14, "empty": 1
    }  # fmt: skip
    lines = [json.loads(line) for line in (done.out / "predictions.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b"]
    assert lines[1]["prompt_tokens"] == 2
    last = {"text": "yz", "tokens": 3, "token_ids": [5, 6, 2], "finish_reason": "stop"}
    assert lines[1]["draws"][2] == last
    assert json.loads((done.work / "run.json").read_bytes())["resumed_rows"] == 2


def test_importing_loads_nothing_heavy() -> None:
    """Drawing the graph imports every product."""
    code = "import sys, workflow.engine as e; sys.exit(bool({'torch', 'vllm'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- vLLM itself -------------------------------------------------------------------------------------


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
    return folder


def some_prompts(count: int) -> dict[str, list[int]]:
    """Prompts of 5 to 45 tokens; every other one shares a beginning of 32 tokens."""
    random = np.random.default_rng(0)
    system = random.integers(4, len(SYMBOLS), 32).tolist()
    return {
        f"row-{i:03d}": (system if i % 2 else []) + [1, *random.integers(4, len(SYMBOLS), 4 + i % 9).tolist()]
        for i in range(count)
    }


def child(script: str, *arguments: Path) -> subprocess.Popen[str]:
    """Python with these tests imported as `t`, in a process group of its own."""
    cache = Path(tempfile.gettempdir()) / f"tunemake-tests-bytecode-{os.getuid()}"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)}
    path = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    code = "import sys, test_predictions as t\nfrom pathlib import Path\n" + script
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
    """An engine that outlives `make`, so that one start serves many scenarios."""

    kept: Kept | None = None
    limit: int | None = None

    def __new__(cls, setup: engine.Setup) -> Kept:
        cls.kept = cls.kept or super().__new__(cls)
        return cls.kept

    def __init__(self, setup: engine.Setup) -> None:
        if not hasattr(self, "draws_at_once"):
            super().__init__(setup)

    def rows_in_flight(self, n: int) -> int:
        return self.limit or super().rows_in_flight(n)

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
    }

    def run(name: str, which: str, **sampling: Any) -> None:
        counts = predictions.make(job(folder / name, written[which], model, **sampling))
        (folder / name / "counts.json").write_text(json.dumps(counts))

    run("full", "full", max_tokens=40)
    run("reversed", "reversed", max_tokens=40)
    Kept.limit = 3
    run("limited", "full", max_tokens=40)
    Kept.limit = None
    run("alone", "alone", max_tokens=40)
    run("five", "full", max_tokens=40, n=5)
    run("other-seed", "few", max_tokens=40, seed=8)
    run("greedy", "few", max_tokens=40, temperature=0)
    run("stop", "few", max_tokens=40, stop=["a", "7b"])
    run("narrow", "few", max_tokens=40, top_p=0.8, top_k=5, repetition_penalty=1.2)
    (folder / "transformers.json").write_text(json.dumps(by_transformers(model, written["few"])))


def by_transformers(model: Path, rows: Path) -> dict[str, Any]:
    """Greedy answers of transformers, with the two highest logits of each step."""
    import torch
    from transformers import Qwen2ForCausalLM

    reference, found = Qwen2ForCausalLM.from_pretrained(model, dtype=torch.float32), {}
    for row in predictions.read_rows(rows):
        options = {"do_sample": False, "temperature": None, "top_k": None, "repetition_penalty": 1.0}
        output = reference.generate(
            torch.tensor(row.input_ids[None].astype(np.int64)), max_new_tokens=40, eos_token_id=2,
            pad_token_id=0, return_dict_in_generate=True, output_logits=True, **options,
        )  # fmt: skip
        tops = [torch.topk(logits[0], 2).values.tolist() for logits in output.logits]
        new = output.sequences[0, len(row.input_ids) :].tolist()
        found[row.id] = {"token_ids": new, "gaps": [high - low for high, low in tops]}
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the output of every scenario."""
    folder = tmp_path_factory.mktemp("served")
    tiny_model(folder / "model")
    finished(child("t.scenarios(Path(sys.argv[1]))", folder))
    return folder


def answers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Row id -> draws, of a finished job."""
    lines = (folder / "out" / "predictions.jsonl").read_bytes().splitlines()
    return {record["id"]: record["draws"] for record in map(json.loads, lines)}


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

    def test_five_draws_keep_the_first_three(self, served: Path) -> None:
        full, five = answers(served / "full"), answers(served / "five")
        assert {row: five[row][:3] for row in full} == full

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

    def test_a_killed_run_goes_on(self, served: Path, tmp_path: Path) -> None:
        script = (
            "t.engine.Engine.rows_in_flight = lambda self, n: 3\n"
            "print(t.predictions.make(t.job(Path(sys.argv[1]), *map(Path, sys.argv[2:]), max_tokens=40)))"
        )
        first = child(script, tmp_path / "j", served / "s", served / "model")
        records = tmp_path / "j" / "work" / "records.jsonl"
        deadline = time.monotonic() + 120
        while not (records.exists() and records.read_bytes().count(b"\n") >= 5):
            assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0]
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        time.sleep(2)
        with pytest.raises(ProcessLookupError):
            os.killpg(first.pid, 0)
        before = records.read_bytes()
        whole = before.count(b"\n")
        assert 5 <= whole < 60
        (tmp_path / "j" / "out").rmdir()
        finished(child(script, tmp_path / "j", served / "s", served / "model"))
        after = records.read_bytes()
        assert after.startswith(before[: before.rfind(b"\n") + 1])
        assert after.count(b"\n") == 60
        assert json.loads((tmp_path / "j" / "work" / "run.json").read_bytes())["resumed_rows"] == whole
        full = (served / "full/out/predictions.jsonl").read_bytes()
        assert (tmp_path / "j/out/predictions.jsonl").read_bytes() == full
