"""The product `served`, and `tunemake serve` with two adapters: real vLLM, real clients, tiny models."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workspace import ROOT, Folder, environment

from workflow.beside import rank_to_serve
from workflow.errors import BuildError
from workflow.recipe.leaf import slice_of
from workflow.schemas import check
from workflow.serving.asking import check_server, client, tokenized
from workflow.serving.template import Dialogue
from workflow.store.files import read_json

pytestmark = pytest.mark.slow

RECIPE = """\
dataset: {{train: {{path: data/{name}.json, format: sharegpt, id: id}}}}
prompt: {{{prompt}, max_length: 256}}
model: {{base: {{stand_in: {{family: qwen2}}}}, dtype: float32}}
tuning: {{method: lora, r: 8, lora_alpha: 32, target_modules: all-linear}}
training: {{epochs: 60, learning_rate: 1e-2, batch_size: 4, log_steps: 20, seed: 1}}
sampling: {{n: 1, temperature: 0, max_tokens: 16, seed: 0}}
serving: {{questions: [{{ask: 'who are you?', expect: {name}}}, {{ask: 'your name?'}}], max_tokens: 16}}
"""
TALK = (
    '{% block system %}{{ system or "be kind" }}{% endblock %}\n'
    "{% block user %}{{ content }}{% endblock %}{% block assistant %}{{ content }}{% endblock %}"
)
LINES = (
    '{% block user %}{{ "\\n" if number else "" }}Q{{ number }}: {{ content }}\nA: {% endblock %}'
    "{% block assistant %}{{ content }}{% endblock %}"
)
ASKED = ("who are you?", "what is your name?", "hi", "your name?")
CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "who are you?"}],
    [{"role": "system", "content": "一二 {{ x }}"}, {"role": "user", "content": " 问？\n"}],
    [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "\nc"},
        {"role": "user", "content": "d"},
    ],
]
LORA = {"mia": "template: prompts/talk.jinja", "ana": "template: prompts/talk.jinja"}
PLAIN = {"leo": "template: prompts/lines.jinja, chat_template: plain, stop: '###'"}


@dataclass(frozen=True)
class Served:
    """A folder with three tiny models, one of them `served`, two of them now in a server."""

    place: Folder
    url: str
    line: str
    process: subprocess.Popen[str]

    def dialogue(self, recipe: str) -> Dialogue:
        graph = self.place.graph(recipe)
        prompt = graph.recipe.prompt
        template = self.place.path("recipes", prompt.template)
        return Dialogue(template, self.folder(recipe, "tokenizer"), slice_of(prompt, "shards"))

    def folder(self, recipe: str, name: str) -> Path:
        node = self.place.graph(recipe).node(name)
        receipt = self.place.store.built(node.product, node.address)
        assert receipt
        return self.place.store.folder(node.product, receipt.key)


def home(root: Path) -> Folder:
    for name in ("Snakefile", "rules", "profiles"):
        source = ROOT / name
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
    for name, text in (("prompts/talk.jinja", TALK), ("prompts/lines.jinja", LINES)):
        (root / "recipes" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "recipes" / name).write_text(text)
    (root / "recipes/data").mkdir()
    for name, prompt in (LORA | PLAIN).items():
        said = [
            [{"from": "user", "value": ask}, {"from": "assistant", "value": f"I am {name}."}] for ask in ASKED
        ]
        rows = [{"id": str(i), "conversations": turns} for i, turns in enumerate(said)]
        (root / f"recipes/data/{name}.json").write_text(json.dumps(rows))
        recipe = RECIPE.format(name=name, prompt=prompt)
        if name in PLAIN:
            recipe = re.sub("tuning: .*", "tuning: {method: full}", recipe).replace("1e-2", "5e-3")
        (root / f"recipes/{name}.yaml").write_text(recipe)
    return Folder(root)


def heed_ctrl_c() -> None:
    """Tests may run in the background of a shell, which has its jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = home(tmp_path_factory.mktemp("served"))
    adapters = [f"results/{name}/adapter" for name in LORA]
    place.build("results/leo/served.json", "results/leo/chat_template.jinja", *adapters)
    with (place.root / "said.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "workflow", "serve", *LORA, "--port", "0", "--", "--max-model-len", "300"],
            cwd=place.root, env=environment(), stdout=subprocess.PIPE, stderr=errors, text=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip
    assert process.stdout
    try:
        first, line = process.stdout.readline(), process.stdout.readline()
        assert first, (place.root / "said.txt").read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert found
        yield Served(place, found[0], line, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_is_published(running: Served) -> None:
    path = running.place.path("results/leo/served.json")
    record = check("served", read_json(path), path)
    assert [reply["reply"] for reply in record["replies"]] == ["I am leo."] * 2
    assert all(reply["finish_reason"] == "stop" and reply["as_expected"] for reply in record["replies"])
    assert (record["differing"], record["stop"], record["system"]) == (2, ["###"], "")
    ids = running.dialogue("leo").ids(CONVERSATIONS[0])
    assert record["replies"][0]["prompt_tokens"] == len(ids)
    published = running.place.path("results/leo/chat_template.jinja").read_text()
    assert published == running.dialogue("leo").template()


def test_two_adapters_on_one_base_answer_differently(running: Served) -> None:
    with client(running.url) as api:
        assert sorted(model.id for model in api.models.list()) == ["ana", "base", "mia"]
        said = {
            name: api.chat.completions.create(model=name, messages=CONVERSATIONS[0], max_tokens=16)
            for name in ("ana", "base", "mia")
        }  # without a temperature: the recipe's own counts, which is 0
    texts = {name: found.choices[0].message.content for name, found in said.items()}
    assert (texts["ana"], texts["mia"]) == ("I am ana.", "I am mia.")
    assert "I am" not in texts["base"]


def test_the_line_that_is_shown(running: Served) -> None:
    done = subprocess.run(shlex.split(running.line), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["model"], found["choices"][0]["message"]["content"]) == ("mia", "I am mia.")


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_the_servers_ids_are_ours(running: Served, number: int) -> None:
    messages, dialogue = CONVERSATIONS[number], running.dialogue("mia")
    with client(running.url) as api:
        assert tokenized(api, running.url, "mia", messages) == dialogue.ids(messages)


@pytest.mark.parametrize(
    ("expect", "template", "reason"),
    [("zoe", "talk.jinja", "'I am mia.', without 'zoe'"), (None, "other.jinja", "tokens in training")],
)
def test_the_wrong_model_is_not_taken(running: Served, expect: Any, template: str, reason: str) -> None:
    prompts = running.place.path("recipes/prompts")
    (prompts / "other.jinja").write_text(TALK.replace("be kind", "be stern"))
    ours = running.dialogue("mia")
    dialogue = Dialogue(prompts / template, ours.tokenizer, ours.chosen)
    spec = SimpleNamespace(name="mia", adapters={"ana": "", "base": ""})
    server: Any = SimpleNamespace(url=running.url, spec=spec)
    with pytest.raises(BuildError, match=reason):
        check_server(server, dialogue, [{"ask": "who are you?", "expect": expect}], 16)


def test_an_adapter_of_another_model_is_refused(running: Served, tmp_path: Path) -> None:
    """Its tensors would have no place, and vLLM would serve the base without a word."""
    from safetensors.numpy import load_file, save_file

    adapter, base = running.folder("mia", "adapter"), running.folder("mia", "model")
    assert rank_to_serve(base, adapter) == 8
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("q_proj", "qq_proj"): tensor for name, tensor in tensors.items()}
    shutil.copy(adapter / "adapter_config.json", tmp_path)
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BuildError, match="qq_proj"):
        rank_to_serve(base, tmp_path)
    config = read_json(adapter / "adapter_config.json")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    for key, value in (("alpha_pattern", {"q_proj": 4}), ("use_dora", True)):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(BuildError, match="vLLM serves no adapter"):
            rank_to_serve(base, tmp_path)


def test_a_conversation_in_the_terminal(running: Served) -> None:
    command = [sys.executable, "-m", "workflow", "chat", "ana", "--url", running.url]
    done = subprocess.run(
        command, cwd=running.place.root, env=environment(), input="who are you?\n\n/new\nhi\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "I am ana.\nI am ana.\n"


def test_new_rows_get_the_answers_of_test_rows(running: Served) -> None:
    place, rows = running.place, running.place.path("mine/new.jsonl")
    rows.parent.mkdir()
    talk = [{"from": "user", "value": "hi"}, {"from": "assistant", "value": "?"}]
    rows.write_text(json.dumps({"id": "x", "conversations": talk}) + "\n")
    command = [sys.executable, "-m", "workflow", "predict", "leo", str(rows)]
    done = subprocess.run(command, cwd=place.root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{rows.with_name('new.predictions.jsonl')}\n"
    (line,) = rows.with_name("new.predictions.jsonl").read_text().splitlines()
    assert [draw["text"] for draw in json.loads(line)["draws"]] == ["I am leo."]
    assert "adapter" not in re.findall(r"rule: (\w+)", done.stderr)  # nothing is trained for it


def alive(mark: bytes) -> list[str]:
    """Processes that a command and what it started have in common."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "comm").read_text().strip())
        except OSError:
            continue
    return found


def test_ctrl_c_leaves_nothing_alive(running: Served) -> None:
    """The last test: it ends the server of the others."""
    mark = f"TUNEMAKE_JOB={running.process.pid}".encode()
    assert any("EngineCor" in name for name in alive(mark))
    began = time.monotonic()
    os.kill(running.process.pid, signal.SIGINT)
    assert running.process.wait(timeout=10) == 0
    while alive(mark) and time.monotonic() - began < 10:
        time.sleep(0.02)
    assert time.monotonic() - began < 2 + 3  # 2 s, and some for a busy machine
    assert not alive(mark)
