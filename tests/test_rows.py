"""rows: validated, identified, split."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.products import rows
from workflow.store.build import Job

COLUMNS = {"format": "columns", "prompt": {"text": "text"}}
Made = tuple[dict[str, Any], list[dict[str, Any]]]


def made(tmp_path: Path, records: list[Any], **chosen: Any) -> Made:
    path = tmp_path / "data.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    counts = rows.make(Job({**(chosen or COLUMNS)}, {}, {"data": path}, out, tmp_path, tmp_path))
    return counts, [json.loads(line) for line in (out / "rows.jsonl").read_bytes().splitlines()]


def test_ids_do_not_depend_on_lines(tmp_path: Path) -> None:
    records = [{"text": str(i % 7)} for i in range(20)]
    _, first = made(tmp_path, records)
    body = (tmp_path / "out/rows.jsonl").read_bytes()
    random.Random(0).shuffle(records)
    made(tmp_path, records)
    assert (tmp_path / "out/rows.jsonl").read_bytes() == body
    ids = [row["id"] for row in first]
    assert ids == sorted(ids)
    assert sum(id.endswith(".2") for id in ids) == 7
    assert sum(id.endswith(".3") for id in ids) == 6


def test_a_bad_row_names_file_line_and_field(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"data.jsonl:2: text: missing; the row has txt; .*bad_rows"):
        made(tmp_path, [{"text": "a"}, {"txt": "b"}])
    with pytest.raises(BuildError, match=r"data.jsonl:1: not JSON"):
        made(tmp_path, ['{"text": NaN}'])


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    records = [{"text": "a"}, {}, "{", {"text": "b"}]
    counts, found = made(tmp_path, records, **COLUMNS, bad_rows=2)
    assert (counts["rows"], counts["bad_rows"], len(found)) == (2, 2, 2)
    assert counts["bad"][0] == "line 2: text: missing; the row has no columns"
    assert counts["bad"][1].startswith("line 3: not JSON")
    with pytest.raises(BuildError, match=r":3: .*bad row 2, bad_rows allows 1"):
        made(tmp_path, records, **COLUMNS, bad_rows=1)


def test_no_rows_and_equal_ids(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no rows; nothing to build from"):
        made(tmp_path, [])
    with pytest.raises(BuildError, match=r":3: id 'a' was already used in line 1"):
        made(
            tmp_path,
            [{"text": "x", "n": "a"}, {"text": "x", "n": "b"}, {"text": "y", "n": "a"}],
            **COLUMNS,
            id="n",
        )


def problem(number: int, id: str | None, text: str = "") -> dict[str, Any]:
    questions = [{"question": f"Q{k}", "options": ["x", "y"], "answer": "A"} for k in range(3)]
    return {"problem": text or f"P{number}", "questions": questions, **({"id": id} if id else {})}


def groups(tmp_path: Path, records: list[Any], part: str, seed: int = 0) -> dict[str, int]:
    split = {"part": part, "test": 0.3, "seed": seed}
    _, found = made(tmp_path, records, format="round1", split=split)
    return {row["group"]: sum(r["group"] == row["group"] for r in found) for row in found}


@pytest.mark.parametrize("named", [True, False])
def test_split_keeps_problems_together_and_is_stable(tmp_path: Path, named: bool) -> None:
    records = [problem(i, f"p{i}" if named else None) for i in range(60)]
    test, train = groups(tmp_path, records, "test"), groups(tmp_path, records, "train")
    assert set(test.values()) == set(train.values()) == {3}
    assert not test.keys() & train.keys()
    assert len(test) + len(train) == 60
    assert 8 <= len(test) <= 30
    grown = groups(tmp_path, [problem(i, f"p{i}" if named else None) for i in range(90)][::-1], "test")
    assert test.keys() <= grown.keys()
    assert not grown.keys() & train.keys()
    assert groups(tmp_path, records, "test", seed=1) != test


def test_equal_problems_without_id_fall_into_one_split(tmp_path: Path) -> None:
    records = [problem(i % 20, None) for i in range(60)]
    test, train = groups(tmp_path, records, "test"), groups(tmp_path, records, "train")
    assert len(test) + len(train) == 60
    assert not {name.split(".")[0] for name in test} & {name.split(".")[0] for name in train}


def test_an_empty_split(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no rows in this split"):
        made(tmp_path, [{"text": "a"}], **COLUMNS, split={"part": "test", "test": 1e-9, "seed": 0})
