"""An experiment built whole, with stand-ins for training and predicting: its page, its figures, its sheet."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from accidents import build, start
from test_arms import RANKS, write
from workspace import Folder, folder
from zygote import Zygote

from workflow.cli import main
from workflow.errors import BuildError
from workflow.pairing import Compared, Figure, Gain, Paired
from workflow.report.conclusion import conclude
from workflow.scoreboard import scoreboard
from workflow.verification import verify

REVIEW = "review: {arm: r16, rows: 10}\n"
TARGETS = [
    f"results/experiments/ranks/{name}"
    for name in ("report.html", "experiment.json", "review.csv", "figures")
]


@pytest.fixture(scope="module")
def built(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with the experiment's results; tests only read it, or copy it."""
    place = write(folder(tmp_path_factory.mktemp("experiment") / "it", test=40), RANKS + REVIEW)
    build(zygote, place, *TARGETS)
    return place


@pytest.fixture
def here(built: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(built.root)
    return built


def result(place: Folder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.path("results/experiments/ranks/experiment.json").read_text())
    return found


class Page(HTMLParser):
    """The text of a page, and whatever it would fetch."""

    def __init__(self, page: str):
        super().__init__()
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [f"{tag} {value}" for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_figures_are_those_of_the_scores(here: Folder) -> None:
    (one, *more) = result(here)["compared"]
    assert (one["metric"], one["system"]) == ("accuracy", "voted")
    assert [other["system"] for other in more] == ["greedy", "draws", "single", "base"]
    for arm, figure in one["figures"].items():
        node = here.graph(f"experiments/ranks/{arm}").node("scores")
        receipt = here.store.built("scores", node.address)
        assert receipt
        scores = json.loads((here.store.folder("scores", receipt.key) / "scores.json").read_text())
        assert figure["value"] == pytest.approx(scores["systems"]["voted"]["accuracy"])
        assert one["rows"] == scores["scored"]
    assert set(one["gains"]) == {"r4", "r16"}


def test_the_page_is_whole_and_needs_nothing_else(here: Folder) -> None:
    page = Page(here.path("results/experiments/ranks/report.html").read_text())
    assert page.fetched == []
    assert "Which rank?" in page.text and "small (baseline)" in page.text
    for heading in (
        "What this proves",
        "What it cannot prove",
        "What differs",
        "Scores",
        "Training",
        "How much",
    ):
        assert heading in page.text
    assert "tuning.r rank of the adapter 8 16 training" in page.text
    assert "each arm was trained once" in page.text
    assert "Training loss over optimizer steps" in page.text and "Training loss over tokens seen" in page.text
    assert "Nobody has judged yet" in page.text
    pictures = sorted(path.name for path in here.path("results/experiments/ranks/figures").iterdir())
    assert pictures == ["difference-accuracy.svg", "loss-over-steps.svg", "loss-over-tokens.svg"]


def test_a_second_build_makes_nothing_and_the_page_is_verified(here: Folder, zygote: Zygote) -> None:
    before = here.path("results/experiments/ranks/report.html").read_bytes()
    assert here.planned(*TARGETS) == {}
    assert "whole back to its sources" in verify(here.store, Path("results/experiments/ranks"))
    assert here.path("results/experiments/ranks/report.html").read_bytes() == before


def test_judgements_land_on_the_page(built: Folder, zygote: Zygote, tmp_path: Path) -> None:
    place = built.copy(tmp_path / "it")
    sheet = place.path("results/experiments/ranks/review.csv")
    with sheet.open(newline="") as file:
        columns, *lines = csv.reader(file)
    key = json.loads(next(place.path("store/review").glob("*/key.json")).read_text())
    for number, line in enumerate(lines):  # nine for the arm, one for the baseline, of ten
        arm = "A" if key[line[1]] == "other" else "B"
        line[-1] = arm if number else {"A": "B", "B": "A"}[arm]
    filled = place.path("recipes/experiments/reviews/one.csv")
    filled.parent.mkdir()
    with filled.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    write(place, RANKS + REVIEW.replace("10}", "10, sheet: reviews/one.csv}"))
    made = build(zygote, place, *TARGETS)
    assert [entry.split()[0] for entry in made] == ["experiment"]
    n = len(lines)
    text = Page(place.path("results/experiments/ranks/report.html").read_text()).text
    assert f"r16 was preferred in {100 * (n - 1) / n:.1f} % of {n} decided comparisons" in text
    judged = result(place)["review"]
    assert (judged["other"], judged["one"], judged["ties"], judged["unjudged"]) == (n - 1, 1, 0, 0)
    filled.write_text(filled.read_text().replace(lines[0][1], "0" * 12))
    run = start(zygote, place, TARGETS[0])
    assert run.wait() != 0
    printed = place.root.with_name("it.txt").read_text()
    assert re.search(r"one.csv:2: check '0+' is of no line of this review", printed), printed


def test_compare_reads_what_is_built(
    here: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["small", "experiments/ranks/r16"]
    board = scoreboard(names, here.store)
    assert board.paired.headlines[0].gains["experiments/ranks/r16"].difference == pytest.approx(
        result(here)["compared"][0]["gains"]["r16"]["difference"]
    )
    whole = scoreboard(["experiments/ranks"], here.store)
    assert list(whole.paired.headlines[0].figures) == [
        f"experiments/ranks/{a}" for a in ("baseline", "r4", "r16")
    ]
    paths = {kind: tmp_path / f"it.{kind}" for kind in ("csv", "markdown", "html")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", str(path))]
    assert main(["compare", *names, *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(board.text) and "accuracy (voted)" in printed
    records = list(csv.DictReader(paths["csv"].read_text().splitlines()))
    assert len(records) == 10 and records[0]["difference"] == "" and records[1]["test"]
    assert paths["markdown"].read_text().count("| experiments/ranks/r16 |") == 1
    assert Page(paths["html"].read_text()).fetched == []


def test_compare_builds_nothing(here: Folder) -> None:
    with pytest.raises(
        BuildError, match="small-base: the recipe has no|scores: the recipe has no such product"
    ):
        scoreboard(["small", "small-base"], here.store)
    with pytest.raises(BuildError, match="name two or more recipes"):
        scoreboard(["small", "recipes/small.yaml"], here.store)
    here.path("recipes/fresh.yaml").write_text(
        here.path("recipes/small.yaml").read_text().replace("r: 8", "r: 7")
    )
    with pytest.raises(BuildError, match=r"fresh: not scored yet; run `snakemake results/fresh/scores.json`"):
        scoreboard(["small", "fresh"], here.store)


def test_compare_shows_the_last_build_of_an_edited_recipe(
    built: Folder, zygote: Zygote, tmp_path: Path, monkeypatch: Any
) -> None:
    place = built.copy(tmp_path / "it")
    monkeypatch.chdir(place.root)
    build(zygote, place, "results/small/scores.json")
    place.edit("small.yaml", "r: 8", "r: 5")
    board = scoreboard(["small", "experiments/ranks/r16"], place.store)
    assert "small: scores of its last build; the recipe or its data changed since" in board.text


def comparison(gain: Gain, rows: int = 8, metric: str = "accuracy") -> Paired:
    figures = {name: Figure(0.5, 0.4, 0.6) for name in ("baseline", "a")}
    return Paired([Compared(metric, "voted", rows, rows, figures, {"a": gain})], {"baseline": 0, "a": 0})


SLICE = {
    "arms": {
        "baseline": {"is": "small", "differs": []},
        "a": {"is": {}, "differs": [
            {"field": "prompt.max_length", "old": "1", "new": "2", "where": "training"},
            {"field": "tuning.r", "old": "1", "new": "2", "where": "training"},
        ]},
    },
    "order": ["baseline", "a"],
    "rehearsal": False,
}  # fmt: skip


def test_what_a_difference_proves() -> None:
    gain = Gain(0.2, 0.1, 0.3, 0.001, 0.001, "exact McNemar", 30, 2, 0.14)
    facts = {"baseline": {"tokens": 5, "steps": 1}, "a": {"tokens": 6, "steps": 1}}
    found = conclude(SLICE, comparison(gain, 400), facts)
    assert found.sentence == "accuracy against the baseline: a +20.0 points."
    assert (
        "a is better: accuracy of a less that of the baseline is +20.0 points (95 % interval +10.0 to +30.0)"
        in (found.proves[1])
    )
    said = " ".join(found.cannot)
    assert "only true differences in accuracy of about 14.0 (a) points or more" in said
    assert "Which factor of a makes a difference: prompt.max_length, tuning.r change together" in said
    assert "by prompt.max_length, arms learn different tokens" in said
    assert "each arm was trained once" in said and "different numbers of tokens or steps" in said
    assert "too narrow" not in said


def test_what_few_rows_cannot_prove() -> None:
    gain = Gain(0.0, -0.0, 0.0, 1.0, 1.0, "exact McNemar", 0, 0, None)
    found = conclude(SLICE, comparison(gain), {})
    assert found.sentence == "No difference in accuracy is shown."
    said = " ".join(found.cannot)
    assert (
        "That a equals the baseline: its values are the same on all 8 test items, so up to about 38 %" in said
    )
    assert "Anything from less than 6 rows that differ to one side" in said
    assert "from 8 test items intervals come out too narrow" in said
    assert "trained once" not in said
    rehearsed = conclude(SLICE | {"rehearsal": True}, comparison(gain), {})
    assert rehearsed.sentence.startswith("A rehearsal") and "no difference" not in " ".join(rehearsed.proves)
