"""What is served and what is refused, without a server; stop strings that a server adds to requests."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from workspace import RECIPE, Folder, folder

from workflow.cli import main
from workflow.errors import BuildError
from workflow.products import served
from workflow.serving.choice import Choice, gpus_of, refuse_flags
from workflow.serving.record import Reply
from workflow.serving.server import curl, refuse_used_port
from workflow.serving.stops import VARIABLE, DefaultStops, with_stops
from workflow.settle import draw
from workflow.store.build import Job

PROMPT = RECIPE[: RECIPE.index("sampling:")]
LORA = "method: lora, r: 8, lora_alpha: 32, target_modules: all-linear"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    draw.cache_clear()
    return folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROMPT.replace(LORA, "method: prompt_tuning, virtual_tokens: 4"), "changes no weight"),
        (PROMPT.replace(LORA, "method: full"), "leaves no adapter"),
        (PROMPT.replace("method: lora", "method: qlora, quantization: {type: nf4}"), "leaves no adapter"),
        (PROMPT.replace("{recipe: small-base}", "{stand_in: {family: qwen2}}"), "different base models"),
    ],
)
def test_recipes_that_cannot_be_served_together(place: Folder, text: str, reason: str) -> None:
    text = text.replace("deepspeed: {zero_stage: 2}\n", "")
    place.path("recipes/other.yaml").write_text(text)
    with pytest.raises(BuildError, match=reason):
        Choice.of(["small", "other"])


def test_what_is_built_for_a_server(place: Folder) -> None:
    (first, *stamps) = Choice.of(["small"]).targets()
    assert first == "results/small/merged"
    assert {Path(stamp).parent.name for stamp in stamps} == {"merged", "tokenizer"}
    place.path("recipes/other.yaml").write_text(RECIPE.replace("r: 8", "r: 4"))
    targets = Choice.of(["small", "other"]).targets()
    assert targets[:1] + targets[3:] == ["results/small/adapter", "results/other/adapter"]


def test_an_untuned_model_is_served_as_it_is(place: Folder) -> None:
    text = RECIPE.replace("  train: {path: data/train.jsonl, format: round1}\n", "")
    kept = [
        line for line in text.splitlines() if line.split(":")[0] not in ("tuning", "training", "deepspeed")
    ]
    place.path("recipes/asked.yaml").write_text("\n".join(kept).replace(", compare: [base]", ""))
    assert {Path(stamp).parent.name for stamp in Choice.of(["asked"]).targets()} == {"merged", "tokenizer"}


@pytest.mark.parametrize(
    "flag",
    [
        "--trust-remote-code",
        "--trust_remote_code",
        "--trust-rem",
        "--chat-template=x",
        "--model",
        "--config=a",
    ],
)
def test_flags_that_would_serve_something_else(flag: str) -> None:
    with pytest.raises(BuildError, match="exactly what was trained"):
        refuse_flags(["--max-model-len", "9", flag])
    refuse_flags(["--max-model-len", "9", "--enforce-eager"])


def test_gpus_that_flags_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [gpus_of(["--seed=1"]), gpus_of(["-tp", "2"]), gpus_of(["--tensor_parallel_size=2"])] == [1, 2, 2]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_of(["-tp", "2"]) == 0


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BuildError, match="choose another --port"):
            refuse_used_port("127.0.0.1", taken.getsockname()[1])


def test_flags_stand_behind_two_dashes_where_they_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["table", "x", "--", "--max-model-len", "9"])
    assert "behind --: --max-model-len 9" in capsys.readouterr().err
    assert main(["serve", "x", "--", "--trust-remote-code"]) == 2  # no such recipe


def test_the_curl_line_is_one_that_a_shell_reads() -> None:
    line = curl("http://127.0.0.1:1", "m", "who's\n$(x)", temperature=0)
    import shlex

    body = json.loads(shlex.split(line)[-1])
    assert body["messages"] == [{"role": "user", "content": "who's\n$(x)"}]


@pytest.mark.parametrize(
    ("asked", "stop"),
    [("{}", ["#"]), ('{"stop": null}', ["#"]), ('{"stop": "a"}', ["a", "#"]), ('{"stop": ["#"]}', ["#"])],
)
def test_stops_are_added(asked: str, stop: list[str]) -> None:
    assert json.loads(with_stops(asked.encode(), ["#"]))["stop"] == stop


@pytest.mark.parametrize("body", [b"", b"no", b"[1]", b'"x"', b'{"stop": 5}'])
def test_what_is_no_request_is_left_for_vllm_to_refuse(body: bytes) -> None:
    assert with_stops(body, ["#"]) == body


@pytest.mark.parametrize(("path", "changed"), [("/v1/chat/completions", True), ("/tokenize", False)])
def test_the_middleware_changes_questions_alone(
    path: str, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, '["#"]')
    parts = [b'{"model": ', b'"m"}']
    seen: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        seen.extend([dict(scope["headers"])[b"content-length"], body])

    async def send(_: Any) -> None: ...

    scope = {"type": "http", "path": path, "headers": [(b"Content-Length", b"14")]}
    if not changed:
        scope["headers"] = [(b"content-length", b"14")]
    asyncio.run(DefaultStops(app)(scope, receive, send))
    assert json.loads(seen[1]) == {"model": "m"} | ({"stop": ["#"]} if changed else {})
    assert int(seen[0]) == len(seen[1])


def _reply(text: str) -> Reply:
    return Reply(ask="hi", reply=text, finish_reason="stop", expect=None, as_expected=True, prompt_tokens=3,
                 base_reply=None)  # fmt: skip


@pytest.mark.parametrize(
    ("said", "canary", "refused"), [("a", True, True), ("a", False, False), ("b", True, False)]
)
def test_the_canary(
    said: str, canary: bool, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that answers as before training did; servers and engines are tested elsewhere."""
    from token_rows import tokenizer

    class Running:
        def __init__(self, *_: Any): ...
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None: ...
        def ready(self) -> Any:
            return self

    monkeypatch.setattr(served, "Server", Running)
    monkeypatch.setattr(served, "check_server", lambda *_: [_reply("a")])
    monkeypatch.setattr(served, "_base_replies", lambda *_: [said])
    template = tmp_path / "p.jinja"
    template.write_text("{% block user %}{{ content }}{% endblock %}")
    asked = {"questions": [{"ask": "hi", "expect": None}], "system": None, "max_tokens": 4, "canary": canary}
    prompt = {"chat_template": "model", "stop": None, "train_on": "last", "history": None}
    inputs = {"tokenizer": tokenizer(), "model": tmp_path, "base": tmp_path}
    job = Job(
        {"serving": asked, "prompt": prompt}, inputs, {"template": template}, tmp_path, tmp_path, tmp_path
    )
    if refused:
        with pytest.raises(BuildError, match="every reply is the base model's"):
            served.make(job)
        return
    assert served.make(job) == {"questions": 1, "differing": int(said != "a")}
    assert json.loads((tmp_path / "served.json").read_text())["replies"][0]["base_reply"] == said
