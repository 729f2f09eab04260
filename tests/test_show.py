"""The scores in a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow.errors import BuildError
from workflow.results import Measured, Scores
from workflow.show import summary, table

VOTED = Measured(accuracy=0.75, low=0.5, high=1, n=8, parse_rate=0.875, length_rate=1 / 24)
BASELINE = Measured(accuracy=0.425, low=0.4, high=0.452, n=8, parse_rate=None, length_rate=None)
GAIN = {"difference": 0.1234, "low": -0.05, "high": 0.2}
SCORES = Scores.model_validate(
    {
        "rows": 10,
        "scored": 8,
        "draws": 3,
        "majority_answer": "B",
        "systems": {"voted": VOTED, "draws": VOTED, "majority_class": BASELINE},
        "tests": {
            "greedy_vs_base": {"better": 31, "worse": 12, "p": 0.00537, "method": "mcnemar", **GAIN},
            "voted_vs_single": {"better": 2, "worse": 1, "p": 1, "method": "bootstrap", **GAIN},
            "voted_vs_greedy": {"better": 90, "worse": 1, "p": 1e-20, "method": "mcnemar", **GAIN},
        },
        "texts": {"draws": {"texts": 30, "empty": 1, "cut": 2, "loops": 3, "abstained": 4}},
    }
)


def test_table_as_a_person_sees_it() -> None:
    assert table(SCORES) == "\n".join(
        [
            "system           accuracy %  95 % interval  n  parsed %  cut at max_tokens %",
            "majority class         42.5   40.0 to 45.2  8         -                    -",
            "mean of 3 draws        75.0  50.0 to 100.0  8      87.5                  4.2",
            "vote of 3 draws        75.0  50.0 to 100.0  8      87.5                  4.2",
            "",
            "texts            texts  empty  cut  in a loop  without an answer",
            "mean of 3 draws     30      1    2          3                  4",
            "",
            "majority class: every row answered B",
            "not scored: 2 of 10 rows, which have no gold answer",
            "tuning: only this model is right on 31 rows, only the base model on 12: "
            "p = 0.0054 (exact McNemar test); +12.3 points, 95 % interval -5.0 to +20.0",
            "voting: only the vote is right on 2 rows, only the first draw on 1: "
            "p = 1.00 (paired bootstrap); +12.3 points, 95 % interval -5.0 to +20.0",
            "voting: only the vote is right on 90 rows, only greedy on 1: "
            "p < 0.0001 (exact McNemar test); +12.3 points, 95 % interval -5.0 to +20.0",
        ]
    )


def test_without_gold_it_says_so() -> None:
    empty = Scores(rows=5, scored=0, draws=3, systems={}, tests={})
    assert table(empty) == "not scored: none of the 5 test rows has a gold answer"


def test_summary_reads_the_published_scores(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/scores.json").write_text(SCORES.model_dump_json())
    assert summary("demo", tmp_path) == table(SCORES)


def test_summary_says_how_to_build_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"not built yet; run `snakemake .*demo/scores\.json"):
        summary("demo", tmp_path)


def test_summary_refuses_damaged_scores(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/scores.json").write_text('{"rows": 0}')
    with pytest.raises(BuildError, match="not a valid scores"):
        summary("demo", tmp_path)
