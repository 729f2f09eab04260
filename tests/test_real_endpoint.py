"""Endpoints for real: vLLM's own server, and a whole build that may not tell anybody its key."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import Handler, serving
from test_endpoint import chat
from tiny_predictions import answers, job, shards, some_prompts, tiny_model

from tests import workspace
from workflow.products import predictions
from workflow.store.build import Job

pytestmark = pytest.mark.slow

KEY = "sk-very-secret-9876543210"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
RECIPE = """\
dataset: {{test: {{path: data/test.jsonl, format: round1}}}}
prompt: {{template: prompts/tiny.jinja, max_length: 2000}}
model: {{base: {{stand_in: {{family: qwen2}}}}, dtype: float32}}
sampling:
  {{n: 2, temperature: 1, max_tokens: 9, seed: 0,
  engine: {{name: endpoint, base_url: '{url}', model: m, api: chat}}}}
voting: {{answer: {{pattern: '([A-D])', match: last}}, rule: majority, ties: first}}
scoring: {{metrics: [accuracy]}}
execution: {{endpoint: {{key_variable: MY_KEY}}}}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint")
    tiny_model(folder / "model")
    (folder / "chat.jinja").write_text(TEMPLATE)
    shards(folder / "rows", some_prompts(20))
    return folder


@pytest.fixture(scope="module")
def url(place: Path) -> Iterator[str]:
    """vLLM's server with the tiny model, a process of its own."""
    port = free_port()
    options = (
        f"--model {place / 'model'} --host 127.0.0.1 --port {port} --served-model-name m --dtype float32 "
        f"--chat-template {place / 'chat.jinja'} --generation-config vllm --max-model-len 128 "
        "--max-num-seqs 16 --max-num-batched-tokens 4096 --no-enable-chunked-prefill --enforce-eager "
        f"--kv-cache-memory-bytes {1 << 24} --block-size 32"
    )
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options.split()]
    own = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "VLLM_API_KEY": KEY}
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 240
        while not ready(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < until, (place / "server.log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def asked(place: Path, name: str, **sampling: Any) -> Job:
    made = job(place / name, place / "rows", place / "model", **({"max_tokens": 24} | sampling))
    if "base_url" in sampling["engine"]:
        del made.inputs["model"]
        made.execution["endpoint"] = {"key_variable": "MY_KEY"}
    return made


def test_vllm_s_server_answers_as_transformers(
    place: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy tokens of 20 rows, sent as token ids; log-probabilities to what kernels agree on."""
    monkeypatch.setenv("MY_KEY", KEY)
    engine = {"name": "endpoint", "base_url": url, "model": "m", "api": "completions"}
    greedy: dict[str, Any] = {"temperature": 0, "n": 1, "logprobs": True}
    predictions.make(asked(place, "there", engine=engine, **greedy))
    predictions.make(asked(place, "here", engine={"name": "transformers"}, **greedy))
    there, here = answers(place / "there"), answers(place / "here")
    logprobs = {row: [found[row][0].pop("logprob") for found in (there, here)] for row in here}
    assert there == here
    assert all(one == pytest.approx(two, abs=2e-4) for one, two in logprobs.values())
    drawn = asked(place, "drawn", engine=engine)
    predictions.make(drawn)
    predictions.make(asked(place, "again", engine=engine))
    assert answers(place / "drawn") == answers(place / "again")  # by seeds
    assert any(len({draw["text"] for draw in draws}) == 3 for draws in answers(place / "drawn").values())
    predictions.make(asked(place, "held", engine=engine, constraint={"regex": "[0-9]{3}v"}))
    held = [draw["text"] for draws in answers(place / "held").values() for draw in draws]
    assert all(re.fullmatch("[0-9]{3}v", text) for text in held)


def test_messages_are_answered_by_the_server_s_template(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    schema = tmp_path / "answer.json"
    schema.write_text('{"type": "integer"}')
    made = chat(tmp_path / "a", url, n=1, logprobs=True, constraint={"choice": None, "regex": None})
    made.sources["json_schema"] = schema
    made.execution["endpoint"]["key_variable"] = "MY_KEY"
    predictions.make(made)
    draws = [draw for (draw,) in answers(tmp_path / "a").values()]
    assert len(draws) == 4 and any(draw["finish_reason"] == "stop" for draw in draws)
    for draw in draws:
        assert re.fullmatch("-?[0-9]+", draw["text"]) and draw["token_ids"] is None
        assert 0 < draw["tokens"] <= 16 and draw["logprob"] <= 0


def test_a_build_tells_nobody_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its logs, receipts, plans, results, what it prints, nor any process list meanwhile."""
    monkeypatch.setenv("MY_KEY", KEY)
    seen: list[bytes] = []

    def look_around(handler: Handler) -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.append(place.read_bytes())
            except OSError:
                continue
        handler.reply(500, f"{handler.headers['authorization']} is fine".encode())

    folder = workspace.folder(tmp_path / "w", test=2)
    with serving(look_around) as server:
        folder.path("recipes/asked.yaml").write_text(RECIPE.format(url=server.url))
        folder.build("results/asked/scores.json", "results/asked/predictions.jsonl")
        assert set(server.keys) == {f"Bearer {KEY}"}
    assert seen and not any(KEY.encode() in line for line in seen)
    written = [path for path in folder.root.rglob("*") if path.is_file()]
    assert len(written) > 30
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    line = json.loads(folder.path("results/asked/predictions.jsonl").read_text().splitlines()[0])
    assert line["prompt_tokens"] is None and line["draws"][0]["token_ids"] is None
