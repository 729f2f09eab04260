"""Parts of files: together they are the file, and whatever their number the votes are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_voted import SLICE, prediction, row, write

from workflow.errors import BuildError
from workflow.products import voted
from workflow.spans import spans
from workflow.store.build import Job, Resources

NAMES = {"rows": "rows.jsonl", "voter own": "predictions.jsonl", "voter x": "predictions.jsonl"}


@pytest.mark.parametrize("text", ["", "a\n", "a\nb\nc\n", "a\nb\nc\nd\n", "a\nb\nc", "\n\n", "aa\nb"])
@pytest.mark.parametrize("block", [1, 2, 1 << 22])
def test_spans_are_all_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int) -> None:
    monkeypatch.setattr("workflow.spans._BLOCK", block)
    path = tmp_path / "x"
    path.write_text(text)
    lines = text.splitlines(keepends=True)
    found = [one for (one,) in spans([path], 2)]
    texts = [text[span.begin : span.end] for span in found]
    assert texts == (["".join(lines[i : i + 2]) for i in range(0, len(lines), 2)] or [""])
    assert [span.line for span in found] == list(range(1, max(2, len(lines) + 1), 2))


def test_a_shorter_file_has_nothing_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("a\nb\nc\nd\ne\n")
    (tmp_path / "short").write_text("a\nb\nc\n")
    found = [
        ["".join(path.read_text()[s.begin : s.end].split()) for path, s in zip(paths, part, strict=True)]
        for paths in [[tmp_path / "long", tmp_path / "short"]]
        for part in spans(paths, 2)
    ]
    assert found == [["ab", "ab"], ["cd", "c"], ["e", ""]]


def job(tmp_path: Path, name: str, threads: int, predicted: list[str], rows: int = 25) -> Job:
    ids = [f"r{i:02d}" for i in range(rows)]
    group = [row(id, "A", group=f"p{i // 3}", index=i % 3) for i, id in enumerate(ids)]
    place = tmp_path / name
    place.mkdir()
    inputs = {
        "rows": write(place / "rows", "rows.jsonl", group),
        "voter own": write(place / "own", "predictions.jsonl", [prediction(i, "AB-") for i in predicted]),
        "voter x": write(place / "x", "predictions.jsonl", [prediction(i, "BA") for i in ids]),
    }
    (place / "out").mkdir()
    chosen = {**SLICE, "members": ["x"]}
    return Job(chosen, inputs, {}, place / "out", place, place, resources=Resources(threads))


def test_parts_and_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"r{i:02d}" for i in range(25)]
    whole = job(tmp_path, "whole", 1, ids)
    counts = voted.make(whole)
    monkeypatch.setattr("workflow.spans.spans.__defaults__", (4,))
    parts = job(tmp_path, "parts", 2, ids)
    assert voted.make(parts) == counts
    names = sorted(path.name for path in whole.out.iterdir())
    assert names == ["curves.json", "submission.jsonl", "voted.jsonl"]
    assert [(parts.out / name).read_bytes() for name in names] == [
        (whole.out / name).read_bytes() for name in names
    ]
    assert not list(parts.work.glob("part-*"))


def test_a_missing_row_is_named_whatever_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow.spans.spans.__defaults__", (4,))
    without = [f"r{i:02d}" for i in range(25) if i != 5]
    with pytest.raises(BuildError, match=r"own.predictions\.jsonl: nothing about row 'r05'"):
        voted.make(job(tmp_path, "a", 2, without))
    last = [f"r{i:02d}" for i in range(24)]
    with pytest.raises(BuildError, match=r"own.predictions\.jsonl: nothing about row 'r24'"):
        voted.make(job(tmp_path, "b", 1, last))


def test_order_is_looked_at_between_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow.spans.spans.__defaults__", (1,))
    made = job(tmp_path, "a", 1, ["r00", "r01"], rows=2)
    for path in (made.inputs[role] / name for role, name in NAMES.items()):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(BuildError, match=r"rows\.jsonl: 'r00' after 'r01' is not sorted"):
        voted.make(made)
