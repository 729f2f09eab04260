"""Builds by real Snakemake: wrong names and mistakes end in one clear message; cheap products are made."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import RECIPE, Folder, command, environment, folder, pretend

OVERLAP = "results/small/overlap.json"
HUB = "{base: Qwen/Qwen2-0.5B, revision: unpinned, dtype: float32}"


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return folder(tmp_path / "it")


def refused(place: Folder, target: str) -> str:
    """What a build that must fail at once says about it, without what Snakemake prints at every start."""
    run = place.snakemake(target)
    assert run.returncode not in (0, None)
    printed = run.stdout + run.stderr
    assert "Traceback" not in printed and "Exception in" not in printed
    assert "Job stats" not in printed and not place.path("logs").exists()
    return printed.partition("Building DAG of jobs...\n")[2].strip()


STRANGE = ["results/../x/voted.jsonl", "results/a b/voted.jsonl", "results/$(touch PWNED)/voted.jsonl"]


@pytest.mark.parametrize("target", STRANGE)
def test_a_strange_name_is_no_target(place: Folder, target: str) -> None:
    before = set(place.root.rglob("*"))
    assert "No rule to produce" in refused(place, target)
    new = {path.relative_to(place.root).parts[0] for path in set(place.root.rglob("*")) - before}
    assert new <= {".snakemake"}


NAMES = [
    ("results/smal/voted.jsonl", "recipes/smal.yaml: no such recipe; did you mean small?"),
    ("results/rehearsal/voted.jsonl", "'rehearsal' is not a recipe name"),
    ("results/experiments/scores.json", "'experiments' is not a recipe name"),
    ("results/small-base/voted.jsonl", "voted: the recipe has no such product"),
]


@pytest.mark.parametrize(("target", "message"), NAMES)
def test_a_wrong_name_is_said_in_one_line(place: Folder, target: str, message: str) -> None:
    printed = refused(place, target)
    assert printed.startswith("Error: ") and message in printed
    assert "\n" not in printed


MISTAKES: list[tuple[str, str, str]] = [
    (
        "train: {path: data/train.jsonl",
        "train: {path: data/gone.jsonl",
        r"recipes/data/gone\.jsonl: no such file",
    ),
    (
        "train.jsonl,",
        f"train.jsonl, sha256: {'ab' * 32},",
        r"recipes/data/train\.jsonl: SHA-256 is [0-9a-f]{64}, but ",
    ),
    (
        "gone.jsonl,",
        f"gone.jsonl, sha256: {'ab' * 32},",
        r"gone\.jsonl: no such file; put the file with SHA-256 (ab){32}",
    ),
    (
        "lora_alpha",
        "lora_aplha",
        r"recipes/small\.yaml:6:\d+: tuning\.lora_aplha: unknown key; did you mean lora_alpha",
    ),
    ("{recipe: small-base}", "{recipe: small}", r"recipes name each other in a circle: small -> small"),
    (
        "{base: {recipe: small-base}, dtype: float32}",
        HUB,
        r"revision of Qwen/Qwen2-0\.5B is unpinned: run `tunemake lock",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_in_a_recipe_is_said_with_its_place(
    place: Folder, old: str, new: str, message: str
) -> None:
    if "gone" in old:
        place.edit("small.yaml", "train.jsonl,", "gone.jsonl,")
    place.edit("small.yaml", old, new)
    printed = refused(place, "results/small/voted.jsonl")
    assert printed.startswith("Error: ") and re.search(message, printed)
    assert len(printed.splitlines()) <= 4  # all mistakes, the offending line under each


def test_a_broken_recipe_breaks_no_other(place: Folder) -> None:
    place.path("recipes/broken.yaml").write_text(RECIPE.replace("lora_alpha", "lora_aplha"))
    assert place.planned("results/small/voted.jsonl")["voted"] == 1


def test_without_a_target_every_recipe_is_built(place: Folder) -> None:
    plan = place.planned()
    shown = [plan[f"publish{which}"] for which in ("", "_report", "_figures", "_folder")]
    assert shown == [2, 1, 1, 1]  # what small answers, its report with figures, the model of small-base


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a real overlap report."""
    place = folder(tmp_path_factory.mktemp("made") / "it")
    printed = place.build(OVERLAP)
    assert "rows 2 overlap 1 publish 1 total 4" in " ".join(printed.split())
    return place


def test_the_overlap_needs_rows_alone(made: Folder) -> None:
    report = json.loads(made.path(OVERLAP).read_text())
    assert (report["train_rows"], report["test_rows"], report["exact_pairs"]) == (8, 4, 0)
    shown = json.loads(made.path("results/small/built.json").read_text())["overlap.json"]
    assert shown["address"] == made.graph("small").node("overlap").address


def spoil(place: Folder) -> None:
    """Take the file away that is to be published."""
    node = place.graph("small").node("overlap")
    receipt = place.store.built("overlap", node.address)
    assert receipt
    (place.store.folder("overlap", receipt.key) / "overlap.json").unlink()


def test_a_failed_publish_leaves_the_old_file(made: Folder, tmp_path: Path) -> None:
    place = made.copy(tmp_path / "it")
    old = place.path(OVERLAP).read_bytes()
    spoil(place)
    run = place.snakemake("--forcerun", "publish", "--", OVERLAP)
    assert run.returncode and "overlap.json: missing" in run.stderr
    assert place.path(OVERLAP).read_bytes() == old
    assert not list(place.path("results").rglob("*.tmp"))


def started(place: Folder, targets: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(*targets), cwd=place.root, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_two_builds_at_once_make_each_product_once(place: Folder) -> None:
    assert place.planned("results/small/report.html")["shards"] == 3  # this writes the plans
    nodes = [place.graph("small").node(name) for name in ("shards_train", "shards_test", "overlap")]
    targets = [str(place.store.stamp(node.product, node.address).relative_to(place.root)) for node in nodes]
    builds = [started(place, targets) for _ in range(2)]
    printed = [build.communicate(timeout=120)[0] for build in builds]
    assert [build.returncode for build in builds] == [0, 0], printed
    made = re.findall(r"^(\w+ [0-9a-f]{8}): made in", "\n".join(printed), re.M)
    inner = {node.address: node for top in nodes for node in top.closure()}.values()
    assert sorted(made) == sorted(f"{node.product} {node.address[:8]}" for node in inner)


def predictions(place: Folder, answer: Callable[[str], list[str]]) -> str:
    """A predictions.jsonl that answers every test row."""
    node = place.graph("small").node("rows_test")
    receipt = place.store.built("rows", node.address)
    assert receipt
    rows = (place.store.folder("rows", receipt.key) / "rows.jsonl").read_text().splitlines()
    draws = {
        row["id"]: [{"text": text, "finish_reason": "stop"} for text in answer(row["gold"][0])]
        for row in map(json.loads, rows)
    }
    return "".join(json.dumps({"id": id, "draws": texts}) + "\n" for id, texts in draws.items())


def test_votes_and_submission_are_published(made: Folder, tmp_path: Path) -> None:
    place = made.copy(tmp_path / "it")
    text = predictions(place, lambda gold: [gold, "?", gold])
    pretend(place, "small", {"predictions": text}, leave=("voted", "scores", "report"))
    targets = [f"results/small/{name}" for name in ("voted.jsonl", "submission.jsonl")]
    assert place.planned(*targets) == {"voted": 1, "publish": 2}
    place.build(*targets)
    voted, problems = ([json.loads(line) for line in place.path(t).read_text().splitlines()] for t in targets)
    assert [(line["correct"], line["abstentions"]) for line in voted] == [(True, 1)] * 4
    assert {problem["id"]: problem["questions"] for problem in problems} == {
        line["id"]: [{"answer": line["questions"][0]["answer"]}]
        for line in map(json.loads, place.path("recipes/data/test.jsonl").read_text().splitlines())
    }
