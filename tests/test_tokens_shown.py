"""Rows shown token by token: all characters there, the trained marked, nothing for a terminal to obey."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_conversations import CHAT, row, turns
from test_report import job as report_job
from test_report import page
from tiny_predictions import manifest
from token_rows import job, tokenizer
from token_rows import row as single
from workspace import Folder, environment, folder

from workflow.cli import main
from workflow.encoding import backend_of
from workflow.products import MAKERS, shards
from workflow.report.inputs import Inputs
from workflow.report.rows import PIECES, training_rows
from workflow.settle import settle
from workflow.show_rows import _painted
from workflow.store.build import Resources, build
from workflow.tokens import TokenRow, read_rows
from workflow.tokens_shown import first_rows, pieces, visible


def made(tmp_path: Path, rows: list[dict[str, Any]], **chosen: Any) -> list[TokenRow]:
    one = job(tmp_path, rows)
    one.slice.update(chosen)
    if rows[0]["turns"]:
        one.sources["template"].write_text(CHAT)
    shards.make(one)
    return list(read_rows(tmp_path / "out"))


def texts(tmp_path: Path, trained: bool) -> list[str]:
    backend = backend_of(tokenizer())
    joined = []
    for one in first_rows(tmp_path / "out", 9):
        marks = [(piece.text, piece.trained) for piece in pieces(one, backend)]
        joined.append("".join(text for text, mark in marks if mark == trained))
    return joined


def test_conversations_and_characters_of_several_tokens(tmp_path: Path) -> None:
    talk = turns("你好 🙂", "龘！é", "再见\n", "好")  # these characters are bytes to the tiny tokenizer
    [one] = made(tmp_path, [row(talk)], train_on="all_assistant")
    backend = backend_of(tokenizer())
    found = pieces(one, backend)
    whole = backend.decode(one.input_ids.tolist(), skip_special_tokens=False)
    assert "".join(piece.text for piece in found) == whole
    assert "龘" in [piece.text for piece in found] and len(found) < len(one.input_ids)
    assert texts(tmp_path, True) == ["龘！é<|im_end|>好<|im_end|>"]
    plain = _painted(found, colour=False)
    assert re.findall("⟦(.*?)⟧", plain) == ["龘│！│é│<|im_end|>", "好│<|im_end|>"]
    assert plain.replace("│", "").replace("⟦", "").replace("⟧", "").replace("↵", "") == whole


def test_colours_say_the_same(tmp_path: Path) -> None:
    [one] = made(tmp_path, [single(1, "一\n二", "答\n好")])
    painted = _painted(pieces(one, backend_of(tokenizer())), colour=True)
    assert "".join(re.findall(r"\x1b\[30;(?:42|102)m(.*?)\x1b\[0m", painted)) == "答↵好<|im_end|>"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", painted)
    assert plain.endswith("assistant↵\n答↵\n好<|im_end|>")
    assert all(line.count("\x1b[0m") * 2 == line.count("\x1b") for line in painted.split("\n"))


def test_nothing_is_hidden() -> None:
    assert visible("a\x1b[31m\u202eb\u200d\t\n\u2028") == "a\\x1b[31m\\u202eb\\u200d\\t↵\n\\u2028"


def test_rows_are_first_by_hash_whatever_comes_later(tmp_path: Path) -> None:
    made(tmp_path / "few", [single(n, "一") for n in range(5)])
    made(tmp_path / "many", [single(n, "一") for n in range(30)])
    few, many = (first_rows(tmp_path / name / "out", 30) for name in ("few", "many"))
    kept = [one.id for one in many if one.id in {other.id for other in few}]
    assert [one.id for one in few] == kept != sorted(kept)


def test_the_report_marks_the_trained_tokens(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\u202e</b><b>"
    one = job(tmp_path, [single(1, hostile, hostile), single(2, "一" * 2000, "二")])
    counts = shards.make(one)
    known = Path(shutil.copytree(tokenizer(), tmp_path / "tokenizer"))
    found = {"shards_train": manifest(one.out, counts), "tokenizer": manifest(known, {})}
    asked = report_job(tmp_path / "report", found, runs=False)
    shown = {row.id: row for row in training_rows(Inputs.of(asked))}
    assert shown["r001"].left_out == 0 and shown["r002"].left_out > 1000
    assert len(shown["r002"].begin) + len(shown["r002"].end) == PIECES
    assert [piece.text for piece in shown["r002"].end if piece.trained] == ["二", "<|im_end|>"]
    html = page(asked)
    body = html[html.index("What the model is trained on") : html.index("<h2>Provenance")]
    assert "<script>" not in body and "\u202e" not in body
    first = body[body.index('soft">r001<') :].split("</article>")[0]
    marked = "".join(re.findall("<b>(.*?)</b>", first))
    assert marked == "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e&lt;/b&gt;&lt;b&gt;&lt;|im_end|&gt;"
    assert f"[… {shown['r002'].left_out:,} tokens …]" in body


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = folder(tmp_path_factory.mktemp("shown") / "w")
    graph, store = place.graph("small"), place.store
    for node in (inner for name in ("shards_train", "overlap") for inner in graph.node(name).closure()):
        settle(store, node)
        build(store, node.product, node.address, MAKERS[node.product], Resources())
    return place


def test_the_command(
    built: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.root)
    monkeypatch.delenv("TUNEMAKE_STORE", raising=False)
    assert main(["show", "small", "--rows", "2"]) == 0
    printed = capsys.readouterr().out
    ids = re.findall(r"^row (\S+): \d+ tokens, \d+ trained \(", printed, re.M)
    assert len(ids) == 2 and printed.count("⟦") == printed.count("⟧") == 3
    assert "8 rows of 1,080 tokens" in printed and "None of the 4 test rows is shown" in printed
    assert main(["show", "small", "--row", ids[1]]) == 0
    assert re.findall(r"^row (\S+):", capsys.readouterr().out, re.M) == ids[1:]
    assert main(["show", "small", "--row", "nope"]) == 2
    assert "shards_train has no row 'nope'" in capsys.readouterr().err
    assert main(["show", "small-base", "--rows", "1"]) == 2
    said = capsys.readouterr().err
    assert (
        "is not built; run `snakemake results/small-base/merged --until shards overlap --cores all`" in said
    )


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_in_a_terminal(built: Folder, no_color: str, colours: bool) -> None:
    own, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "workflow", "show", "small", "--rows", "1"],
        cwd=built.root, env={**environment(), "NO_COLOR": no_color, "TERM": "xterm"}, stdout=terminal,
    )  # fmt: skip
    os.close(terminal)
    said = b""
    try:
        while part := os.read(own, 1 << 16):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(own)
    assert process.wait() == 0
    assert (b"\x1b[30;42m" in said) == colours != ("⟦".encode() in said.split(b"\n", 1)[1])
