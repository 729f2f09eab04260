"""Reading data files record by record."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from samples import DATA

from workflow.errors import BuildError
from workflow.formats import reading, tables
from workflow.formats.reading import blocks, records


def read(tmp_path: Path, body: str | bytes, name: str = "data.jsonl") -> list[tuple[int, Any]]:
    path = tmp_path / name
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return list(records(path))


GOOD = [
    (b'{"a": 1}\n{"a": 2}\n', [(1, 1), (2, 2)]),
    (b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}', [(1, 1), (3, 2)]),
    ('{"a": "x\u2028y\u2029z\x85"}\n{"a": 2}\n'.encode(), [(1, "x\u2028y\u2029z\x85"), (2, 2)]),
    (b'{"a": "x\\u0000y"}\n', [(1, "x\0y")]),
    (b'[{"a": 1},\n\n {"a":\n2}]\n', [(1, 1), (3, 2)]),
    (b'\xef\xbb\xbf\n [ {"a": "\xe2\x80\xa8"}\r\n, {"a": 2} ] \r\n', [(2, "\u2028"), (3, 2)]),
    (b"", []),
    (b"\n \r\n", []),
    (b"[]", []),
    (b"[ \n ]\n", []),
]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
@pytest.mark.parametrize(("body", "wanted"), GOOD)
def test_json_files(tmp_path: Path, body: bytes, wanted: list[Any], name: str) -> None:
    assert [(line, record["a"]) for line, record in read(tmp_path, body, name)] == wanted


BAD_RECORDS = [b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": Infinity}', b'{"a": "\x01"}']


@pytest.mark.parametrize("shape", [b"%s\n", b"[\n%s]"])
@pytest.mark.parametrize("bad", [*BAD_RECORDS])
def test_values_that_json_does_not_know_are_bad_rows(tmp_path: Path, bad: bytes, shape: bytes) -> None:
    if shape.startswith(b"[") and b"\x01" in bad:
        with pytest.raises(BuildError, match=r"data.jsonl:2: not JSON: Invalid control character"):
            read(tmp_path, shape % bad)
        return
    [(line, value)] = read(tmp_path, shape % bad)
    assert isinstance(value, ValueError)
    assert "not JSON" in str(value)
    assert line == (2 if shape.startswith(b"[") else 1)


@pytest.mark.parametrize("bad", [b'{"a": 1', b"\0", b"\xff\xfe", b'{"a": "\xed\xa0\x80"}', b"{'a': 1}"])
def test_lines_that_are_not_json_are_bad_rows(tmp_path: Path, bad: bytes) -> None:
    found = read(tmp_path, b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')
    assert [line for line, _ in found] == [1, 2, 3]
    assert isinstance(found[1][1], ValueError)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[", r"1: not JSON.*cut off"),
        (b'[{"a": 1},\n', r"2: not JSON.*cut off"),
        (b'[{"a": 1},]', r"1: not JSON"),
        (b'[{"a": 1}\n', r"1: the JSON list is cut off"),
        (b'[{"a": 1},\n{"a": "x', r"2: not JSON"),
        (b'[{"a": 1}\n{"a": 2}]', r"1: the JSON list is cut off"),
        (b'[{"a": 1}] [{"a": 2}]', r"more text behind"),
        (b'[{"a": "\xff"}]', r"not UTF-8 text"),
        (b"[" * 100_000, r"1: not JSON.*recursion"),
    ],
)
def test_damaged_lists(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read(tmp_path, body)


def test_csv(tmp_path: Path) -> None:
    body = '\ufeffid,text,\r\n1,"two\r\nlines, ""quoted""",x\r\n\r\n2,中\u2028文\r\n3,a,b,c\r\n4,,'
    found = read(tmp_path, body, "data.CSV")
    assert found[0] == (2, {"id": "1", "text": 'two\r\nlines, "quoted"', "": "x"})
    assert found[1] == (4, {"id": "2", "text": "中\u2028文"}) or found[1][0] == 5
    assert isinstance(found[2][1], ValueError)
    assert str(found[2][1]) == "4 values for 3 columns"
    assert found[3][1] == {"id": "4", "text": "", "": ""}


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"a,b,a\n1,2,3\n", "two columns are called 'a'"), (b'a\n"x', "not CSV"), (b"a\n\xff\n", "not UTF-8")],
)
def test_damaged_csv(tmp_path: Path, body: bytes, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        read(tmp_path, body, "data.csv")


def test_empty_csv_and_unknown_ending(tmp_path: Path) -> None:
    assert read(tmp_path, b"", "data.csv") == read(tmp_path, b"a,b\n", "data.csv") == []
    for name in ("data.xlsx", "data", "data.gz", "data.txt.gz"):
        with pytest.raises(BuildError, match=r"end in \.jsonl, \.json, \.csv or \.tsv, perhaps with \.gz"):
            read(tmp_path, gzip.compress(b""), name)


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.json.GZ"])
@pytest.mark.parametrize(("body", "wanted"), GOOD)
def test_packed_json_files(tmp_path: Path, body: bytes, wanted: list[Any], name: str) -> None:
    found = read(tmp_path, gzip.compress(body), name)
    assert [(line, record["a"]) for line, record in found] == wanted


def test_packed_tables_and_damaged_lines(tmp_path: Path) -> None:
    body = b"a,b\n1,\xe4\xb8\xad\n"
    assert read(tmp_path, gzip.compress(body), "data.csv.gz") == [(2, {"a": "1", "b": "中"})]
    found = read(tmp_path, gzip.compress(b'{"a": 1}\n{"a"\n'), "data.jsonl.gz")
    assert [type(value) for _, value in found] == [dict, ValueError]


def test_packed_lines_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK", 64)
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"a": %d}\n' % i for i in range(100))))
    assert len(list(blocks(path))) > 10
    assert [record["a"] for _, record in records(path)] == list(range(100))


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.csv.gz"])
def test_damaged_gzip(tmp_path: Path, name: str) -> None:
    body = gzip.compress(b'{"a": 1}\n' * 10_000)
    for damaged in (b"a,b\n1,2\n", body[: len(body) // 2], body[:20] + b"\0" * 9 + body[29:]):
        with pytest.raises(BuildError, match=r"data\..*\.gz: not a whole gzip file \(.*fetch it again"):
            read(tmp_path, damaged, name)


def test_tab_separated(tmp_path: Path) -> None:
    found = read(tmp_path, 'a\tb\n"x\ny"\t1,2\n', "data.tsv")
    assert found == [(2, {"a": "x\ny", "b": "1,2"})]


def test_one_object_over_several_lines(tmp_path: Path) -> None:
    data = json.loads((DATA / "bbh/date_understanding.json").read_text())
    for body in (json.dumps(data), json.dumps(data, indent=2), "\ufeff\n" + json.dumps(data, indent=2)):
        [(line, record)] = read(tmp_path, body, "data.json")
        assert (line if body[0] == "{" else 1, record) == (1, data)
        assert [r for _, r in read(tmp_path, gzip.compress(body.encode()), "data.json.gz")] == [data]
    found = read(tmp_path, '{"a":\n{"a": 2}\n', "data.jsonl")  # two lines, the first cut off
    assert [type(value) for _, value in found] == [ValueError, dict]


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH", 7)
    rows = [{"t": f"中{i}", "l": [["q", "a"]] * (i % 3), "s": {"x": i}, "n": None} for i in range(50)]
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=20)
    assert list(records(path)) == list(enumerate(rows, start=1))
    monkeypatch.setattr(reading, "BLOCK", 100)
    assert len(list(blocks(path))) > 5


def test_damaged_parquet(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"t": ["x" * 100] * 100}), tmp_path / "good.parquet")
    body = (tmp_path / "good.parquet").read_bytes()
    for damaged in (b"", b"PAR1", body[:-20], b"[{}]"):
        with pytest.raises(BuildError, match=r"data\.parquet: not a Parquet file that can be read \("):
            read(tmp_path, damaged, "data.parquet")
