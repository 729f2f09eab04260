"""Endpoints: what is sent, what comes back, and everything that a server can do wrong meanwhile."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from fault_server import cut, echo_key, garbage, hang, hang_up, serving, status
from tiny_predictions import answers, context, job, record, shards

from workflow import endpoint
from workflow.engine import seed_of
from workflow.errors import BuildError
from workflow.products import predictions
from workflow.store.build import Job

KEY = "sk-very-secret-0123456789"
PROMPTS = {f"row-{i}": [1, 5 + i] for i in range(4)}
ROWS = [
    {"id": name, "prompt": {"q": f"Q{i}", "options": ["x", "y"]}, "turns": [], "rendered": None, "target": {}}
    for i, name in enumerate(PROMPTS)
]
SLICE = {
    "split": "test", "chat_template": "model", "stop": None, "train_on": "last", "history": None,
    "max_length": 99, "max_source_length": None, "max_target_length": None, "overflow": "error",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.05)


def asked(folder: Path, url: str, execution: dict[str, Any] | None = None, **sampling: Any) -> Job:
    """A job of token ids; two attempts share draws, folders differ by name."""
    engine = {"name": "endpoint", "base_url": url, "model": "m", "api": "completions"}
    rows = folder.parent / "rows"
    if not rows.exists():
        shards(rows, PROMPTS)
    made = job(folder, rows, rows, folder.parent / "pieces", **({"engine": engine} | sampling))
    del made.inputs["model"]
    made.execution.update({"endpoint": {"requests_at_once": 3, "give_up": 20.0} | (execution or {})})
    return made


def chat(folder: Path, url: str, **sampling: Any) -> Job:
    """A job of messages."""
    engine = {"name": "endpoint", "base_url": url, "model": "m", "api": "chat"}
    made = asked(folder, url, engine=engine, **sampling)
    template, rows = folder.parent / "t.jinja", folder.parent / "asked"
    rows.mkdir(exist_ok=True)
    (rows / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    template.write_text("{% block system %}Be.{% endblock %}{% block user %}{{ q }}?{% endblock %}")
    made.slice["prompt"] = SLICE
    made.sources["template"] = template
    made.inputs.update({"rows": rows, "tokenizer": rows})
    return made


def test_token_ids_and_seeds_go_out_and_records_say_what_is_known(tmp_path: Path) -> None:
    with serving() as server:
        counts = predictions.make(asked(tmp_path / "a", server.url, stop=["!"], logprobs=True))
    found = answers(tmp_path / "a")
    seed = seed_of(7, "row-2", 1)
    told = {"text": f"[1, 7] {seed}", "token_ids": None, "tokens": 3, "finish_reason": "stop"}
    assert found["row-2"][1] == told | {"logprob": -0.5833}
    assert (counts["draws"], counts["completion_tokens"], counts["prompt_tokens"]) == (12, 36, 8)
    (body,) = [body for body in server.bodies if body.get("seed") == seed]
    assert body == {
        "model": "m", "prompt": [1, 7], "max_tokens": 16, "temperature": 1.0, "top_p": 1.0, "seed": seed,
        "stop": ["!"], "stop_token_ids": [2], "return_token_ids": True, "logprobs": 0,
    }  # fmt: skip
    assert server.most <= 3 and set(server.keys) == {None}


def test_messages_go_out_as_the_renderer_makes_them(tmp_path: Path) -> None:
    with serving() as server:
        counts = predictions.make(chat(tmp_path / "a", server.url, n=1, temperature=0))
    turns = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Q1?"}]
    assert turns in [body["messages"] for body in server.bodies]
    assert not any("seed" in body or "top_k" in body for body in server.bodies)
    line = json.loads((tmp_path / "a/out/predictions.jsonl").read_text().splitlines()[1])
    assert (line["prompt_tokens"], line["draws"][0]["text"], counts["prompt_tokens"]) == (None, "Q1? None", 0)


def test_constraints_are_sent(tmp_path: Path) -> None:
    schema = tmp_path / "answer.json"
    schema.write_text('{"type": "object"}')
    with serving() as server:
        made = chat(tmp_path / "a", server.url, n=1, constraint={"choice": None, "regex": None})
        made.sources["json_schema"] = schema
        predictions.make(made)
        predictions.make(asked(tmp_path / "b", server.url, n=1, constraint={"regex": "[ab]"}))
    told = {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }
    assert [body["response_format"] for body in server.bodies[:4]] == [told] * 4
    assert [body["structured_outputs"] for body in server.bodies[4:]] == [{"regex": "[ab]"}] * 4


FAULTS = [
    status(429, retry_after="0"), status(500), status(503, retry_after="soon"), hang_up, cut,
    garbage("<html>"), garbage('{"choices": []}'),
    garbage('{"choices": [{"text": 1, "finish_reason": "stop"}]}'),
    garbage("[" * 200_000), garbage('{"choices": [{"text": "x", "finish_reason": "error"}]}'),
]  # fmt: skip


def test_faults_change_nothing_but_the_time(tmp_path: Path) -> None:
    with serving() as server:
        predictions.make(asked(tmp_path / "a" / "same", server.url))
    with serving(*FAULTS) as server:
        made = asked(tmp_path / "b" / "same", server.url)
        predictions.make(made)
    assert len(server.bodies) == 12 + len(FAULTS) and record(made)["retries"] == len(FAULTS)
    first, second = (tmp_path / name / "same/out/predictions.jsonl" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_server_that_hangs_is_asked_again(tmp_path: Path) -> None:
    with serving(hang) as server:
        predictions.make(asked(tmp_path / "a", server.url, {"timeout": 0.3}))
    assert len(server.bodies) == 13


def test_the_server_s_own_wait_is_kept(tmp_path: Path) -> None:
    with serving(status(429, retry_after="1")) as server:
        predictions.make(asked(tmp_path / "a", server.url, {"requests_at_once": 1}, n=1))
    assert server.times[1] - server.times[0] >= 1


def test_giving_up_keeps_what_came_and_goes_on_from_there(tmp_path: Path) -> None:
    with serving(*[status(200)] * 0, *[status(500)] * 9999) as server:
        server.faults[:0] = [lambda handler: handler.reply(200, handler.good({"prompt": [0], "seed": 0}))] * 5
        made = asked(tmp_path / "a", server.url, {"give_up": 0.5})
        with pytest.raises(BuildError, match=r"given up after \d+ attempts in .*status 500 no; build again"):
            predictions.make(made)
        kept = sum(len(path.read_bytes().splitlines()) for path in context(made).iterdir())
        assert kept == 5
        server.faults.clear()
        before = len(server.bodies)
        again = asked(tmp_path / "b", server.url)
        predictions.make(again)
        assert len(server.bodies) - before == 7 and record(again)["reused_draws"] == 5


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 302])
def test_a_refusal_is_told_at_once(tmp_path: Path, code: int) -> None:
    with serving(*[status(code, "because  of\nthis", location="http://127.0.0.1:1/")] * 99) as server:
        began = time.monotonic()
        with pytest.raises(BuildError, match=rf"row 'row-\d': refused with status {code}: because of this$"):
            predictions.make(asked(tmp_path / "a", server.url))
        assert time.monotonic() - began < 2 and len(server.bodies) <= 6


class TestKey:
    """The key goes into one header and nowhere else."""

    def test_reaches_nothing_that_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        monkeypatch.setenv("MY_KEY", KEY)
        caplog.set_level(logging.DEBUG)
        with serving(echo_key(500)) as server:
            predictions.make(asked(tmp_path / "a", server.url, {"key_variable": "MY_KEY"}))
        assert set(server.keys) == {f"Bearer {KEY}"}
        written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        said = capfd.readouterr()
        assert written and not any(KEY.encode() in data for data in written)
        assert KEY not in said.out + said.err + caplog.text

    @pytest.mark.parametrize("code", [401, 500])
    def test_is_cut_out_of_what_a_server_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        monkeypatch.setenv("MY_KEY", KEY)
        execution = {"key_variable": "MY_KEY", "give_up": 0.1}
        with serving(*[echo_key(code)] * 999) as server, pytest.raises(BuildError) as error:
            predictions.make(asked(tmp_path / "a", server.url, execution))
        assert KEY not in str(error.value) and "[key] is bad" in str(error.value)
        assert KEY not in repr(error.value.__context__) + repr(error.value.__cause__)

    @pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\n"])
    def test_must_be_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(BuildError, match="no key in MY_KEY; export it") as error:
            predictions.make(asked(tmp_path / "a", "http://127.0.0.1:1/v1", {"key_variable": "MY_KEY"}))
        assert not key or key not in str(error.value)

    def test_is_in_no_draw_s_context(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = predictions.context(asked(tmp_path / "a", "http://h/v1"))
        assert plain == predictions.context(asked(tmp_path / "b", "http://h/v1", {"key_variable": "MY_KEY"}))
        assert plain != predictions.context(asked(tmp_path / "c", "http://i/v1"))
