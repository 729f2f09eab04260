"""rows: validated, identified, split."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from workflow import sorting
from workflow.errors import BuildError
from workflow.formats import reading
from workflow.products import rows
from workflow.store.build import Job, Resources

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
    assert counts["bad"][0] == "line 2: text: missing; the row has no fields"
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


@pytest.mark.parametrize("named", [True, False])
def test_a_split_by_number(tmp_path: Path, named: bool) -> None:
    records = [problem(i, f"p{i}" if named else None) for i in range(40)]
    found = {}
    for part in ("train", "test"):
        split = {"part": part, "test": None, "test_rows": 7, "seed": 1}
        _, rows_found = made(tmp_path, records, format="round1", split=split)
        found[part] = {row["group"] for row in rows_found}
        assert len(rows_found) == 3 * len(found[part])
    assert (len(found["train"]), len(found["test"])) == (33, 7)
    assert not found["train"] & found["test"]
    split["test_rows"] = 40
    with pytest.raises(BuildError, match="takes 40 of 40 rows or problems: none is left to train on"):
        made(tmp_path, records, format="round1", split=split)


def test_equal_problems_without_id_fall_into_one_split(tmp_path: Path) -> None:
    records = [problem(i % 20, None) for i in range(60)]
    test, train = groups(tmp_path, records, "test"), groups(tmp_path, records, "train")
    assert len(test) + len(train) == 60
    assert not {name.split(".")[0] for name in test} & {name.split(".")[0] for name in train}


def test_an_empty_split(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no rows in this split"):
        made(tmp_path, [{"text": "a"}], **COLUMNS, split={"part": "test", "test": 1e-9, "seed": 0})


def files(tmp_path: Path, records: list[dict[str, Any]]) -> dict[str, Path]:
    """The same records as different files."""
    texts = {
        "lines.jsonl": "".join(json.dumps(r) + "\n" for r in records),
        "moved.jsonl": "".join(json.dumps(r, ensure_ascii=False) + "\r\n\n" for r in records[::-1]),
        "keys.jsonl": "".join(json.dumps(dict(reversed(r.items()))) + "\n" for r in records),
        "unused.jsonl": "".join(json.dumps({"note": i, **r}) + "\n" for i, r in enumerate(records)),
        "list.json": "\ufeff" + json.dumps(records, indent=3, ensure_ascii=False) + "\n",
        "oneline.json": json.dumps(records),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    with (tmp_path / "table.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, ["answer", "text"])
        table.writeheader()
        table.writerows(records)
    return {path.name: path for path in tmp_path.iterdir() if path.is_file()}


def written(tmp_path: Path, path: Path, threads: int = 1, **chosen: Any) -> Path:
    out, resources = tmp_path / "out", Resources(threads)
    out.mkdir(exist_ok=True)
    rows.make(Job(chosen or COLUMNS, {}, {"data": path}, out, tmp_path, tmp_path, resources=resources))
    return out / "rows.jsonl"


def body(*arguments: Any, **chosen: Any) -> bytes:
    return written(*arguments, **chosen).read_bytes()


def test_a_file_exported_anew_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["小明", 'a"b\\', "x,y\nz", " 空 ", "é\u0301\U0001f600", "\x7f\x01"]
    records = [{"text": texts[i % 6] + str(i % 40), "answer": str(i % 3)} for i in range(100)]
    chosen = {**COLUMNS, "target": {"answer": "answer"}}
    found = {n: body(tmp_path, path, **chosen) for n, path in files(tmp_path, records).items()}
    assert len(found) == 7
    assert len(set(found.values())) == 1
    monkeypatch.setattr(reading, "BLOCK", 64)
    monkeypatch.setattr(sorting, "SHARD_ROWS", 10)  # many runs and many parts
    for name in found:
        assert body(tmp_path, tmp_path / name, 1 + len(name) % 2, **chosen) == found[name]


def test_unused_columns_of_problems_without_id_change_nothing(tmp_path: Path) -> None:
    records = [problem(i % 5, None) for i in range(8)]
    _, plain = made(tmp_path, records, format="round1")
    noted = [
        {**r, "source": i, "questions": [{**q, "n": i} for q in r["questions"]]}
        for i, r in enumerate(records)
    ]
    _, found = made(tmp_path, noted, format="round1")
    assert found == plain
    assert len({row["group"] for row in found}) == 8


def test_more_than_ten_equal_rows_are_sorted_by_id(tmp_path: Path) -> None:
    _, found = made(tmp_path, [{"text": "same"}] * 25)
    ids = [row["id"] for row in found]
    assert ids == sorted({ids[0], *(f"{ids[0]}.{i}" for i in range(2, 26))})


def test_rows_that_a_condition_leaves_out(tmp_path: Path) -> None:
    where = [{"field": "text", "none_of": ["b"]}]
    counts, found = made(tmp_path, [{"text": text} for text in "abc"], **COLUMNS, where=where)
    assert (counts["rows"], counts["bad_rows"]) == (2, 0)
    assert sorted(row["prompt"]["text"] for row in found) == ["a", "c"]


def test_conversations_are_rows(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    _, [row] = made(tmp_path, [{"conversations": turns}], format="sharegpt")
    assert row["turns"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert (row["gold"], row["prompt"], row["rendered"], row["group"]) == (["a"], {"system": ""}, None, None)


def test_the_line_of_an_id_used_twice_in_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 50)
    records = [{"text": "x", "n": f"{i % 90}"} for i in range(91)]
    with pytest.raises(BuildError, match=r":91: id '0' was already used in line 1; ids must be unique"):
        made(tmp_path, records, **COLUMNS, id="n")


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "SHARD_ROWS", 30)  # a shard is held in memory, and these rows have 32 KB
    peaks = []
    for name, size in (("lines.jsonl", 9), ("lines.jsonl", 45), ("list.json", 9), ("list.json", 45)):
        with (tmp_path / name).open("w") as file:
            file.write("[" * (name[-1] == "n"))
            for i in range(size * 32):
                comma = "," * (name[-1] == "n" and i > 0)
                file.write(comma + json.dumps({"text": f"{i:032d}" * 1000}) + "\n")
            file.write("]" * (name[-1] == "n"))
        reader, writer = os.pipe()
        if not (child := os.fork()):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            written(tmp_path, tmp_path / name)
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            os.write(writer, str(after - before).encode())
            os._exit(0)
        os.close(writer)
        peaks.append(int(os.read(reader, 20)) >> 10)
        os.close(reader)
        os.waitpid(child, 0)
    assert peaks[1] < peaks[0] + 16, peaks
    assert peaks[3] < peaks[2] + 16, peaks
