"""The product voted, from files to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workflow.errors import BuildError
from workflow.products import voted
from workflow.results import VotedLine, read_records
from workflow.schemas import check
from workflow.store.build import Job

SLICE = {
    "answer": {"pattern": "答案是：([A-G])", "match": "last"},
    "rule": "majority",
    "members": [],
    "weights": None,
    "ties": "first",
    "seed": None,
}


def row(
    id: str, gold: str | None = "A", group: str | None = None, index: int = 0, **prompt: Any
) -> dict[str, Any]:
    shown = {"problem": "p", "question": "q", "options": ["甲", "乙", "丙", "丁"], **prompt}
    return {
        "id": id,
        "group": group,
        "index": index,
        "prompt": shown,
        "target": {},
        "gold": [gold] if gold else [],
    }


def prediction(id: str, letters: str) -> dict[str, Any]:
    draws = [
        {
            "text": "" if letter == "-" else f"答案是：{letter}",
            "tokens": 4,
            "token_ids": [1],
            "finish_reason": "stop",
        }
        for letter in letters
    ]
    return {"id": id, "prompt_tokens": 9, "draws": draws}


def write(folder: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / name).write_text(body, encoding="utf-8")
    return folder


def job(tmp_path: Path, rows: list[dict[str, Any]], predictions: list[dict[str, Any]], **changes: Any) -> Job:
    inputs = {
        "rows": write(tmp_path / "rows", "rows.jsonl", rows),
        "voter own": write(tmp_path / "predictions", "predictions.jsonl", predictions),
    }
    (tmp_path / "out").mkdir(exist_ok=True)
    return Job({**SLICE, **changes}, inputs, {}, tmp_path / "out", tmp_path, tmp_path)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_counts_and_schema(tmp_path: Path) -> None:
    rows = [row("a"), row("b", "C"), row("c", None), row("d", "B")]
    drawn = [prediction("a", "AAB"), prediction("b", "BA-"), prediction("c", "---"), prediction("d", "EBB")]
    counts = voted.make(job(tmp_path, rows, drawn))
    found = lines(tmp_path / "out/voted.jsonl")
    assert [line["id"] for line in found] == ["a", "b", "c", "d"]
    assert [line["answer"] for line in found] == ["A", "B", None, "B"]
    assert [line["correct"] for line in found] == [True, False, None, True]
    assert found[0]["votes"] == {"A": 2, "B": 1}
    assert found[1]["tie"] and found[1]["abstentions"] == 1
    assert (found[2]["votes"], found[2]["gold"]) == ({}, [])
    assert found[3]["votes"] == {"B": 2}  # E is not among four options
    for line in found:
        check("voted", line, "test")
        VotedLine.model_validate(line)
    assert counts == {
        "rows": 4, "voted": 3, "abstained": 1, "ties": 1, "abstentions": 5, "unscored": 1, "correct": 2,
        "draws": 3, "agreement": round(5 / 12, 6), "problems": 0,
    }  # fmt: skip
    assert not (tmp_path / "out/submission.jsonl").exists()


def test_ties_may_abstain(tmp_path: Path) -> None:
    counts = voted.make(job(tmp_path, [row("a")], [prediction("a", "AB")], ties="abstain"))
    assert counts["abstained"] == counts["ties"] == 1
    assert lines(tmp_path / "out/voted.jsonl")[0]["correct"] is False


def test_test_set_without_gold_is_voted_and_unscored(tmp_path: Path) -> None:
    counts = voted.make(job(tmp_path, [row("a", None)], [prediction("a", "AAB")]))
    assert (counts["unscored"], counts["voted"], counts["correct"]) == (1, 1, 0)
    line = lines(tmp_path / "out/voted.jsonl")[0]
    assert (line["answer"], line["gold"], line["correct"]) == ("A", [], None)


def test_any_accepted_answer_is_right(tmp_path: Path) -> None:
    rows = [{**row("a"), "gold": ["C", "A"]}, {**row("b"), "gold": ["C", "D"]}]
    counts = voted.make(job(tmp_path, rows, [prediction("a", "A"), prediction("b", "A")]))
    assert counts["correct"] == 1
    assert [line["correct"] for line in lines(tmp_path / "out/voted.jsonl")] == [True, False]


def test_rows_without_a_place_are_no_submission(tmp_path: Path) -> None:
    rows = [{**row(name, group="passage"), "index": None} for name in "ab"]
    assert voted.make(job(tmp_path, rows, [prediction("a", "A"), prediction("b", "A")]))["problems"] == 0
    assert not (tmp_path / "out/submission.jsonl").exists()


def test_submission_keeps_rows_of_equal_text_apart(tmp_path: Path) -> None:
    rows = [
        row("t_000#0", None, "t_000", 0, problem="same", question="same"),
        row("t_001#0", None, "t_001", 0, problem="same", question="same"),
        row("t_001#1", None, "t_001", 1, problem="same", question="same"),
    ]
    drawn = [prediction("t_000#0", "A"), prediction("t_001#0", "B"), prediction("t_001#1", "-")]
    counts = voted.make(job(tmp_path, rows, drawn))
    assert counts["problems"] == 2
    assert lines(tmp_path / "out/submission.jsonl") == [
        {"id": "t_000", "questions": [{"answer": "A"}]},
        {"id": "t_001", "questions": [{"answer": "B"}, {"answer": None}]},
    ]


def test_submission_follows_question_order_not_id_order(tmp_path: Path) -> None:
    ids = sorted(f"t_000#{index}" for index in range(12))  # "#10" sorts before "#2"
    letters = {f"t_000#{index}": "ABCD"[index % 4] for index in range(12)}
    rows = [row(id, None, "t_000", int(id.split("#")[1])) for id in ids]
    voted.make(job(tmp_path, rows, [prediction(id, letters[id]) for id in ids]))
    questions = lines(tmp_path / "out/submission.jsonl")[0]["questions"]
    assert [question["answer"] for question in questions] == list("ABCD" * 3)


def test_missing_question_leaves_the_others_in_their_place(tmp_path: Path) -> None:
    rows = [row("t#0", None, "t", 0), row("t#2", None, "t", 2)]
    voted.make(job(tmp_path, rows, [prediction("t#0", "A"), prediction("t#2", "C")]))
    questions = lines(tmp_path / "out/submission.jsonl")[0]["questions"]
    assert [question["answer"] for question in questions] == ["A", None, "C"]


def test_no_submission_that_would_lack_rows(tmp_path: Path) -> None:
    rows = [row("a", None, "t", 0), row("b", None)]
    assert voted.make(job(tmp_path, rows, [prediction("a", "A"), prediction("b", "A")]))["problems"] == 0
    assert not (tmp_path / "out/submission.jsonl").exists()


def test_two_rows_in_one_place_are_an_error(tmp_path: Path) -> None:
    rows = [row("a", None, "t", 0), row("b", None, "t", 0)]
    with pytest.raises(BuildError, match="problem 't' has two questions 0"):
        voted.make(job(tmp_path, rows, [prediction("a", "A"), prediction("b", "A")]))


@pytest.mark.parametrize(
    ("rows", "predictions", "message"),
    [
        ("abc", "ac", "predictions.jsonl: nothing about row 'b'"),
        ("ac", "abc", "rows.jsonl: nothing about row 'b'"),
        ("ab", "a", "predictions.jsonl: nothing about row 'b'"),
        ("a", "ab", "rows.jsonl: nothing about row 'b'"),
        ("ba", "ba", "rows.jsonl:2: 'a' after 'b' is not sorted"),
        ("aa", "aa", "'a' after 'a' is not sorted"),
        ("", "", "no rows"),
    ],
)
def test_rows_and_predictions_must_be_about_the_same(
    tmp_path: Path, rows: str, predictions: str, message: str
) -> None:
    made = job(tmp_path, [row(id) for id in rows], [prediction(id, "AAA") for id in predictions])
    with pytest.raises(BuildError, match=message):
        voted.make(made)


def test_rows_with_another_number_of_draws(tmp_path: Path) -> None:
    made = job(tmp_path, [row("a"), row("b")], [prediction("a", "AAA"), prediction("b", "AA")])
    with pytest.raises(BuildError, match="row 'b' has 2 draws, not 3"):
        voted.make(made)


@pytest.mark.parametrize(
    "line", ['{"id": "a"}', '{"id": 1, "draws": []}', "{", "", '{"id": "a", "draws": []}']
)
def test_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    made = job(tmp_path, [row("a")], [])
    (tmp_path / "predictions/predictions.jsonl").write_text(f"{line}\n")
    with pytest.raises(BuildError, match=r"predictions\.jsonl:1: damaged"):
        voted.make(made)


def test_missing_file(tmp_path: Path) -> None:
    made = job(tmp_path, [row("a")], [])
    (tmp_path / "predictions/predictions.jsonl").unlink()
    with pytest.raises(BuildError, match="no such file"):
        voted.make(made)


def test_same_bytes_twice(tmp_path: Path) -> None:
    made = job(tmp_path, [row("a"), row("b")], [prediction("a", "BAA"), prediction("b", "CCD")])
    voted.make(made)
    before = (tmp_path / "out/voted.jsonl").read_bytes()
    voted.make(made)
    assert (tmp_path / "out/voted.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"agreement": 1.5},
        {"abstentions": -1},
        {"abstentions": "0"},
        {"votes": {"A": "2"}},
        {"votes": None},
        {"tie": 1},
        {"answer": 3},
        {"correct": "yes"},
        {"more": 1},
    ],
)
def test_model_and_schema_refuse_the_same_lines(tmp_path: Path, change: dict[str, Any]) -> None:
    voted.make(job(tmp_path, [row("a")], [prediction("a", "AAB")]))
    line = lines(tmp_path / "out/voted.jsonl")[0] | change
    with pytest.raises(BuildError, match="not a valid voted"):
        check("voted", line, "test")
    write(tmp_path / "changed", "voted.jsonl", [line])
    with pytest.raises(BuildError, match="damaged"):
        list(read_records(tmp_path / "changed/voted.jsonl", VotedLine))
