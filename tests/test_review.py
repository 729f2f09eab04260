"""The blind review sheet: what it shows and hides, and what a filled-in one says."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from workflow.errors import BuildError
from workflow.products import review
from workflow.review import COLUMNS, Preferences, judged, wilson
from workflow.store.build import Job


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def job(root: Path, n: int = 20, rows: int = 50, seed: int = 0) -> Job:
    """Rows with two answers that say whose they are; every fifth is answered alike."""
    ids = [f"{i:03}" for i in range(n)]
    lines(root / "rows/rows.jsonl", [{"id": i, "prompt": {"text": f'=Q{i}, "why"?\nsay'}} for i in ids])
    for role in ("one", "other"):
        answers = [
            "same " if int(i) % 5 == 0 and role == "one" else "same" if int(i) % 5 == 0 else f"{role} {i}"
            for i in ids
        ]
        records = [{"id": i, "draws": [{"text": text}]} for i, text in zip(ids, answers, strict=True)]
        lines(root / role / "predictions.jsonl", records)
    out = root / f"out-{rows}-{seed}"
    out.mkdir()
    inputs = {role: root / role for role in ("one", "other", "rows")}
    return Job({"rows": rows, "seed": seed}, inputs, {}, out, root / "work", root / "pieces")


def made(root: Path, **how: int) -> tuple[Path, list[dict[str, str]], dict[str, str]]:
    """The folder, the sheet's lines and the key."""
    run = job(root, **how)
    review.make(run)
    text = (run.out / "review.csv").read_text()
    return run.out, list(csv.DictReader(io.StringIO(text))), json.loads((run.out / "key.json").read_text())


def filled(folder: Path, choose: dict[str, str]) -> Path:
    """The sheet with the preferences of `choose`, by check."""
    with (folder / "review.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    path = folder / "filled.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(record | {"preference": choose.get(record["check"], "")} for record in records)
    return path


def test_the_sheet_is_whole_blind_and_in_random_order(tmp_path: Path) -> None:
    folder, sheet, key = made(tmp_path)
    assert len(sheet) == len(key) == 16
    assert list(sheet[0]) == list(COLUMNS)
    assert all(line["preference"] == "" and line["prompt"].startswith("'=Q") for line in sheet)
    sides = [key[line["check"]] for line in sheet]
    assert {"one", "other"} == set(sides)
    for line in sheet:  # the test's answers say whose they are
        assert line["answer A"].split()[0] == key[line["check"]] != line["answer B"].split()[0]
    order = [line["answer A"].split()[1] for line in sheet]
    assert order != sorted(order) and len(set(order)) == 16
    page = (folder / "review.html").read_text()
    assert len(re.findall(r"<article", page)) == 16
    assert not re.search(r"https?://|key\.json|[^-]baseline[^;]", page)
    for line in sheet:
        assert line["check"] in page


def test_seed_and_rows(tmp_path: Path) -> None:
    first, again, other = made(tmp_path)[1], made(tmp_path / "again")[1], made(tmp_path, seed=1)[1]
    assert first == again
    assert [line["prompt"] for line in first] != [line["prompt"] for line in other]
    few = made(tmp_path, rows=5)[1]
    assert few == first[:5]


def test_answers_alike_are_counted_not_asked(tmp_path: Path) -> None:
    assert review.make(job(tmp_path)) == {"rows": 20, "judged": 16, "alike": 4}


@pytest.mark.parametrize("form", ["as it is", "semicolons", "mark", "only what is needed"])
def test_preferences(tmp_path: Path, form: str) -> None:
    folder, sheet, key = made(tmp_path)
    checks = [line["check"] for line in sheet]
    wish = {check: ("A" if key[check] == "other" else "b") for check in checks[:9]}  # all for the other arm
    wish |= {check: ("A" if key[check] == "one" else "B") for check in checks[9:11]} | {checks[11]: " TIE "}
    path = filled(folder, wish)
    if form == "semicolons":
        records = list(csv.reader(io.StringIO(path.read_text(), newline="")))
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=";").writerows(records)
    elif form == "mark":
        path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    elif form == "only what is needed":
        path.write_text("number,check,preference\n" + "".join(f"1,{c},{w}\n" for c, w in wish.items()))
    assert judged(path, key) == Preferences(one=2, other=9, ties=1, unjudged=4)


def test_a_sheet_that_cannot_be(tmp_path: Path) -> None:
    folder, sheet, key = made(tmp_path)
    first = sheet[0]["check"]
    path = filled(folder, {first: "C"})
    with pytest.raises(BuildError, match=r"filled.csv:2: preference 'C' is none of A, B, tie"):
        judged(path, key)
    other = made(tmp_path / "other", seed=9)[2]
    with pytest.raises(
        BuildError, match=r"filled.csv:2: check '\w+' is of no line of this review: the sheet is of"
    ):
        judged(path, other)
    third = filled(folder, {})
    text = third.read_text().replace(sheet[2]["check"], sheet[1]["check"])
    third.write_text(text)
    lines_before = 2 + text[: text.rindex(sheet[1]["check"])].count("\n") - 1
    with pytest.raises(BuildError, match=rf"filled.csv:{lines_before}: judged twice, first in line \d+"):
        judged(third, key)
    third.write_text("check,comment\nx,y\n")
    with pytest.raises(BuildError, match=r"filled.csv:1: no column preference; fill in the sheet"):
        judged(third, key)
    third.write_text(f"check,preference\n{first}\n")
    with pytest.raises(BuildError, match=r"filled.csv:2: 1 columns, not 2"):
        judged(third, key)
    third.write_bytes("check,preference\n\xff".encode("latin-1"))
    with pytest.raises(BuildError, match=r"filled.csv: not UTF-8 text"):
        judged(third, key)


@pytest.mark.parametrize(("share", "n"), [(0, 1), (7, 9), (50, 100), (100, 100)])
def test_wilson(share: int, n: int) -> None:
    found = binomtest(share, n).proportion_ci(method="wilson")
    assert wilson(share, n) == pytest.approx((found.low, found.high), abs=1e-7)
