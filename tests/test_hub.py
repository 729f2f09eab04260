"""Fetching and locking against a small local server that speaks as the hub does."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from workflow import hub
from workflow.errors import BuildError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_never_to_be_shown"
RECIPE = """\
# a comment: unpinned stays here
dataset:
  test: {path: test.jsonl, format: round1}   # unpinned
prompt: {template: p.jinja, max_length: 100}
model:
  base: org/name        # the model
  revision: unpinned    # unpinned until locked
  dtype: float32
"""
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "evil.bin": b"pickle",
}


class Handler(BaseHTTPRequestHandler):
    """Answers with `status`, or with one model of four files."""

    status = 200
    code = ""

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.status != 200:
            return self._send(self.status, b"{}", {"X-Error-Code": self.code} if self.code else {})
        if "/tree/" in self.path:
            tree = [{"type": "file", "path": n, "size": len(b), "oid": "0" * 40} for n, b in FILES.items()]
            return self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if "/api/" in self.path:
            siblings = [{"rfilename": name} for name in FILES]
            body = {"id": "org/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        name = self.path.rsplit("/", 1)[1]
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT}
        return self._send(200 if name in FILES else 404, FILES.get(name, b""), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Handler]]:
    """The hub that the library talks to; a test sets `status`."""
    handler = type("OneTest", (Handler,), {})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    _point_to(monkeypatch, tmp_path, f"http://127.0.0.1:{httpd.server_port}")
    yield handler
    httpd.shutdown()
    httpd.server_close()


def _point_to(monkeypatch: pytest.MonkeyPatch, cache: Path, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(RECIPE)
    return path


def message(action: Any, *arguments: Any) -> str:
    """The one line that an action fails with."""
    with pytest.raises(BuildError) as caught:
        action(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert TOKEN not in text
    assert caught.value.__cause__ is None
    return text


def test_lock_replaces_just_that_scalar(server: type[Handler], recipe: Path) -> None:
    assert hub.lock(recipe) == f"{recipe}: org/name is now pinned at {COMMIT}"
    assert recipe.read_text() == RECIPE.replace("revision: unpinned", f"revision: {COMMIT}")
    assert "pinned already" in hub.lock(recipe)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("revision: unpinned ", "revision: 'unpinned' "),
        ("revision: unpinned ", "revision:\n    unpinned "),
        ("\n", "\r\n"),
        ("# a comment", "\ufeff# 注释"),
    ],
)
def test_lock_keeps_every_layout(server: type[Handler], recipe: Path, old: str, new: str) -> None:
    text = RECIPE.replace(old, new)
    recipe.write_bytes(text.encode())
    hub.lock(recipe)
    before, _, after = text.rpartition("unpinned   " if "unpinned   " in text else "unpinned' ")
    head, tail = recipe.read_bytes().decode().split(COMMIT)
    assert head == before
    assert text.endswith(tail)
    assert after in tail


def test_a_flow_mapping_is_locked_too(server: type[Handler], recipe: Path) -> None:
    text = RECIPE[: RECIPE.index("model:")] + "model: {base: org/name, revision: unpinned, dtype: float32}\n"
    recipe.write_text(text)
    hub.lock(recipe)
    assert recipe.read_text() == text.replace("revision: unpinned", f"revision: {COMMIT}")


def test_a_comment_in_between_is_left_to_the_user(server: type[Handler], recipe: Path) -> None:
    text = RECIPE.replace("revision: unpinned", "revision: # unpinned\n    unpinned")
    recipe.write_text(text)
    assert f"write the commit {COMMIT} here yourself" in message(hub.lock, recipe)
    assert recipe.read_text() == text


def test_a_commit_that_looks_like_a_number_is_quoted(recipe: Path) -> None:
    digits = "1234567890" * 4
    assert f"revision: '{digits}'" in hub._pinned(recipe, RECIPE, digits)


def test_only_a_hub_model_can_be_locked(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("  revision: unpinned    # unpinned until locked\n", ""))
    assert "nothing to lock" in message(hub.lock, recipe)


def test_fetch_shows_progress(server: type[Handler], capfd: pytest.CaptureFixture[str]) -> None:
    hub.fetch("org/name", COMMIT, weights=True)
    assert re.search(r"^org/name: \S+ of \S+ ", capfd.readouterr().err, re.MULTILINE)


def test_fetch_takes_what_is_needed_and_no_pickle(server: type[Handler]) -> None:
    folder = hub.fetch("org/name", COMMIT, weights=True)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


REFUSALS = [
    (401, "", "not found on the hub (401/404): it does not exist, or it is private and your HF_TOKEN"),
    (403, "", "the hub refuses access (403)"),
    (403, "GatedRepo", "access is restricted (403); accept its terms on the hub and set HF_TOKEN"),
    (404, "RepoNotFound", "not found on the hub (401/404)"),
]


@pytest.mark.parametrize(("status", "code", "said"), REFUSALS)
def test_refusals_are_one_line(
    server: type[Handler], recipe: Path, status: int, code: str, said: str
) -> None:
    server.status, server.code = status, code
    assert said in message(hub.fetch, "org/name", COMMIT, True)
    assert said in message(hub.lock, recipe)
    assert recipe.read_text() == RECIPE


def test_an_unknown_commit_is_one_line(server: type[Handler]) -> None:
    server.status, server.code = 404, "RevisionNotFound"
    assert "the hub has no commit 0123456789abcdef" in message(hub.fetch, "org/name", COMMIT, False)


def test_without_a_token_the_remedy_is_to_set_it(
    server: type[Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    server.status = 401
    assert "HF_TOKEN is not set" in message(hub.fetch, "org/name", COMMIT, False)


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: Path) -> None:
    _point_to(monkeypatch, tmp_path, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # it tries five times
    assert "the hub cannot be reached" in message(hub.fetch, "org/name", COMMIT, False)
    assert "the hub cannot be reached" in message(hub.lock, recipe)
