"""Experiments: their files, their arms, and the proof that arms differ in declared factors only."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from workspace import ROOT, Folder, folder, pretend, publish_all

from workflow.arms import changed, lay_out
from workflow.earlier import in_results
from workflow.errors import BuildError
from workflow.experiment_nodes import SCORES, TRAINING
from workflow.recipe import load_recipe, yaml12
from workflow.recipe.experiment import Experiment
from workflow.recipe.load import Written

CASES = Path(__file__).parent / "recipes" / "experiments"
GOOD, BAD = (sorted((CASES / kind).glob("*.yaml")) for kind in ("good", "bad"))
BEYOND_SCHEMA = {
    "misspelt-factor",
    "misspelt-setting",
    "misspelt-matrix",
    "no-arms",
    "arms-and-matrix",
    "arm-of-both",
}
BEYOND_SCHEMA |= {
    "arm-called-baseline",
    "execution-is-no-factor",
    "review-of-which",
    "review-of-nobody",
    "arm-with-a-slash",
}
RANKS = """\
question: Which rank?
baseline: small
factors: {tuning.r: rank of the adapter}
arms:
  r4: {set: {tuning.r: 4}}
  r16: {set: {tuning.r: 16}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return write(folder(tmp_path / "it"), RANKS)


def write(place: Folder, text: str, name: str = "ranks") -> Folder:
    place.path("recipes/experiments").mkdir(exist_ok=True)
    place.path(f"recipes/experiments/{name}.yaml").write_text(text)
    return place


def with_other_rows(place: Folder) -> None:
    """The training rows under another name, one byte longer."""
    rows = place.path("recipes/data/train.jsonl").read_bytes()
    place.path("recipes/data/other.jsonl").write_bytes(rows + b"\n")


def read(path: Path) -> Experiment:
    return Written.read(path, "an experiment is a mapping; see docs/experiments.md").valid(Experiment)


def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads((ROOT / "schemas/experiment.schema.json").read_text()))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_experiments_load_and_fit_the_schema(path: Path) -> None:
    assert read(path).question
    validator().validate(yaml12.parse(path.read_text()).value)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_experiments_name_the_place_and_the_reason(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    where, reason = re.fullmatch(r"(\d+:\d+) (.*)", expected).groups()  # type: ignore[union-attr]
    with pytest.raises(BuildError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert any(line.startswith(f"{path}:{where}: {reason}") for line in lines), lines
    if path.stem not in ("duplicate-arm", "a-list"):
        fits = validator().is_valid(yaml12.parse(path.read_text()).value)
        assert fits == (path.stem in BEYOND_SCHEMA)


def test_an_arm_is_the_recipe_with_other_values(place: Folder) -> None:
    arm = place.draw().recipe("experiments/ranks/r16").recipe
    told = load_recipe(place.path("recipes/small.yaml")).model_dump()
    told["tuning"]["r"] = 16
    assert arm.model_dump() == told


def test_a_null_takes_a_field_away(place: Folder) -> None:
    recipe = load_recipe(place.path("recipes/small.yaml"))
    told = changed(recipe, {"training.log_steps": None, "gate.max_cut": 0.5, "tuning": {"method": "full"}})
    assert "log_steps" not in told["training"]
    assert (told["gate"], told["tuning"]) == ({"max_cut": 0.5}, {"method": "full"})
    assert recipe.model_dump(exclude_unset=True)["training"]["log_steps"] == 2  # it is left alone


def test_arms_share_what_they_have_in_common(place: Folder) -> None:
    ranks = [2**k for k in range(1, 11)]
    write(place, RANKS.partition("arms")[0] + f"matrix: {{tuning.r: {ranks}}}\n")
    node = place.draw().recipe("experiments/ranks").node("experiment")
    made = Counter(inner.product for inner in node.closure())
    assert made["adapter"] == made["merged"] - 1 + 1 == 11  # ten ranks (8 is the baseline's), and small-base
    assert (made["rows"], made["shards"], made["tokenizer"], made["overlap"]) == (3, 3, 1, 1)
    assert made["scores"] == 10
    assert place.draw().recipe("small").node("scores").address == node.inputs[f"{SCORES}baseline"].address
    assert node.slice["order"] == ["baseline", *(f"r-{r}" for r in ranks if r != 8)]


def test_the_arms_graph_is_that_of_a_recipe_with_the_same_words(place: Folder) -> None:
    place.path("recipes/sixteen.yaml").write_text(
        place.path("recipes/small.yaml").read_text().replace("r: 8", "r: 16")
    )
    draw = place.draw()
    assert draw.recipe("sixteen").nodes.keys() == draw.recipe("experiments/ranks/r16").nodes.keys()


REFUSED = {
    "arms: {a: {set: {tuning.r: 4, training.seed: 2}}}": (
        r"4:8: arms.a: differs from the baseline in more than the factors: make it equal, or declare "
        r"training.seed\n    arms: .*\n    training.seed 1 -> 2, in training$"
    ),
    "arms: {a: {set: {tuning.r: 8}}}": r"4:8: arms.a: differs from the baseline in nothing",
    "arms: {a: {set: {tuning.r: 0}}}": r"4:18: arms.a.set: tuning.r: should be greater than 0, not 0",
    "arms: {a: {set: {tuning.r: x}}}": r"4:18: arms.a.set: tuning.r: should be a valid integer, not 'x'",
    "arms: {a: {set: {deepspeed: {zero_stag: 1}}}}": (
        r"4:18: arms.a.set: deepspeed.zero_stag: unknown key; did you mean zero_stage\?"
    ),
    "arms: {a: {set: {training.lr_scheduler.warmup_steps: 1}}}": r"4:18: arms.a.set: training.lr_scheduler",
    "arms: {a: {recipe: smal}}": r"recipes/smal.yaml: no such recipe; did you mean small\?",
    "arms: {a: {recipe: small-base}}": r"4:8: arms.a: scores: the recipe has no such product",
    "matrix: {tuning.r: [8]}": "4:1: every cell of the matrix is the baseline itself",
    "matrix: {tuning.r: [0, 8]}": "tuning.r: should be greater than 0, not 0",
    "matrix: {tuning.r: [4, 4]}": "two cells are both called r-4; write them as arms",
    f"matrix: {{tuning.r: {list(range(1, 70))}}}": "4:1: matrix: more than 64 arms",
}  # fmt: skip


@pytest.mark.parametrize("arms", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_and_where(place: Folder, arms: str) -> None:
    write(place, RANKS.partition("arms")[0] + arms + "\n")
    with pytest.raises(BuildError, match=REFUSED[arms]) as caught:
        place.draw().recipe("experiments/ranks")
    assert "recipes/" in str(caught.value)


def test_every_kind_of_difference_is_found(place: Folder) -> None:
    """Whatever a scores' address comes from: a default, a source's content, another prompt, another base."""
    recipe = place.path("recipes/small.yaml").read_text()
    with_other_rows(place)
    template = place.path("recipes/prompts/tiny.jinja")
    place.path("recipes/prompts/other.jinja").write_text(template.read_text() + " ")
    edits = {
        "training.max_grad_norm": ("seed: 1", "seed: 1, max_grad_norm: 2"),
        "dataset.train": ("data/train.jsonl", "data/other.jsonl"),
        "prompt.template": ("prompts/tiny.jinja", "prompts/other.jinja"),
        "voting.ties": ("ties: first", "ties: abstain"),
        "sampling.top_k": ("max_tokens: 48", "max_tokens: 48, top_k: 3"),
        "gate.max_cut": ("voting:", "gate: {max_cut: 0.5}\nvoting:"),
        "scoring.compare": (", compare: [base]", ""),
        "deepspeed.zero_stage": ("zero_stage: 2", "zero_stage: 1"),
    }
    text = RANKS.partition("arms")[0] + "arms: {other: {recipe: other}}\n"
    write(place, text)
    for field, (old, new) in edits.items():
        assert old in recipe
        place.path("recipes/other.yaml").write_text(recipe.replace(old, new))
        with pytest.raises(BuildError, match=rf"or declare {re.escape(field)}\n"):
            place.draw().recipe("experiments/ranks")
        write(place, text.replace("tuning.r: rank of the adapter", f"{field}: declared"))
        found = place.draw().recipe("experiments/ranks").node("experiment").slice["arms"]["other"]["differs"]
        assert {difference["field"] for difference in found} == {field}
        write(place, text)


def test_what_only_runs_otherwise_is_no_difference(place: Folder) -> None:
    recipe = place.path("recipes/small.yaml").read_text()
    place.path("recipes/other.yaml").write_text(
        recipe.replace("processes: 1", "processes: 2").replace("r: 8", "r: 9")
    )
    write(place, RANKS.partition("arms")[0] + "arms: {other: {recipe: other}}\n")
    node = place.draw().recipe("experiments/ranks").node("experiment")
    assert [found["field"] for found in node.slice["arms"]["other"]["differs"]] == ["tuning.r"]


def test_a_section_covers_its_fields_and_a_path_its_file(place: Folder) -> None:
    with_other_rows(place)
    arms = "arms: {a: {set: {dataset.train.path: data/other.jsonl, tuning.r: 4, tuning.lora_alpha: 8}}}\n"
    write(place, RANKS.partition("factors")[0] + "factors: {dataset.train.path: d, tuning: t}\n" + arms)
    found = place.draw().recipe("experiments/ranks").node("experiment").slice["arms"]["a"]["differs"]
    assert [one["field"] for one in found] == ["tuning.r", "tuning.lora_alpha", "dataset.train"]
    assert found[-1]["old"].startswith("train.jsonl (")


def test_tutorial_4_is_one_experiment() -> None:
    """Without any of its data: the proof needs none. The third setting trains nothing of its own."""
    node = Folder(ROOT).draw().recipe("rehearsal/experiments/history-length").node("experiment")
    trained = {arm: node.inputs[f"{TRAINING}{arm}"].address for arm in node.slice["order"]}
    assert trained["1024"] == trained["1024-at-512"] != trained["baseline"]
    where = {arm: {d["where"] for d in node.slice["arms"][arm]["differs"]} for arm in ("1024", "1024-at-512")}
    assert where == {"1024": {"training", "asking and scoring"}, "1024-at-512": {"training"}}
    fields = {d["field"] for arm in node.slice["arms"].values() for d in arm["differs"]}
    assert fields == {"prompt.max_source_length", "prompt.max_target_length", "sampling.max_tokens"}


def test_a_rehearsal_is_proven_by_the_real_recipes(place: Folder) -> None:
    """Batches of 16 and 8 are both rehearsed with 8: the difference is refused all the same."""
    recipe = place.path("recipes/small.yaml").read_text()
    place.path("recipes/other.yaml").write_text(recipe.replace("batch_size: 8", "batch_size: 16"))
    write(place, RANKS.partition("arms")[0] + "arms: {other: {recipe: other}}\n")
    for name in ("experiments/ranks", "rehearsal/experiments/ranks"):
        with pytest.raises(BuildError, match=r"training.batch_size 8 -> 16, in training"):
            place.draw().recipe(name)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("results/experiments/x", ("experiments/x", "")),
        ("results/experiments/x/report.html", ("experiments/x", "report.html")),
        ("results/experiments/x/a", ("experiments/x/a", "")),
        ("results/experiments/x/a/scores.json", ("experiments/x/a", "scores.json")),
        ("results/rehearsal/experiments/x/review.csv", ("rehearsal/experiments/x", "review.csv")),
        ("results/rehearsal/experiments/x/a/merged", ("rehearsal/experiments/x/a", "merged")),
        ("results/experiments", None),
    ],
)
def test_paths_in_results(path: str, found: tuple[str, str] | None) -> None:
    assert in_results(Path(path)) == found


@pytest.mark.parametrize("name", ["experiments", "experiments/", "experiments/none", "experiments/ranks/r5"])
def test_names_of_nothing(place: Folder, name: str) -> None:
    with pytest.raises(
        BuildError, match=r"reserved|not the name|no such experiment|no arm r5; there are: baseline, r4, r16"
    ):
        place.draw().recipe(name)


@pytest.mark.slow
def test_one_target_builds_all_arms(place: Folder) -> None:
    planned = place.planned("results/experiments/ranks/report.html")
    assert {name: planned[name] for name in ("rows", "shards", "adapter", "scores")} == {
        "rows": 3, "shards": 3, "adapter": 4, "scores": 3,
    }  # fmt: skip
    assert (planned["experiment"], planned["publish_report"]) == (1, 1)
    assert "report" not in planned
    only = place.planned("results/experiments/ranks/r16/adapter")
    assert (only["adapter"], only["publish_folder"]) == (2, 1)


def test_commands_know_experiments(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflow.cleaning import Rules, clean
    from workflow.diff import compare
    from workflow.forecast import forecast
    from workflow.inspection import describe
    from workflow.picture import show
    from workflow.verification import verify
    from workflow.why import explain

    monkeypatch.chdir(place.root)
    assert "experiments/ranks/r16/adapter" in describe(Path("recipes/experiments/ranks.yaml"))[0]
    text, stops = explain("recipes/experiments/ranks.yaml", place.store)
    assert "experiment " in text and stops == 0
    assert explain("results/experiments/ranks/report.html", place.store) == (text, 0)
    assert "adapter" in explain("results/experiments/ranks/r4", place.store)[0]
    assert "tuning.r 4 -> 16" in compare("experiments/ranks/r4", "experiments/ranks/r16", place.store)
    assert "to make" in forecast(["small", "experiments/ranks"], place.store)[0]
    assert "experiments/ranks/baseline/adapter" in show("experiments/ranks", Path("recipes"), place.store)
    pretend(place, "experiments/ranks")
    publish_all(place, "experiments/ranks")
    assert "whole back to its sources" in verify(place.store, Path("results/experiments/ranks/report.html"))
    assert "built" in forecast(["experiments/ranks"], place.store)[0]
    place.path("recipes/experiments/ranks.yaml").write_text("broken")
    said = clean(place.store, Path("recipes"), Rules(delete=True))
    assert "ranks.yaml" in said
    assert "whole back to its sources" in verify(place.store, Path("results/experiments/ranks"))


def test_a_wrong_name_of_a_product(place: Folder) -> None:
    graph = place.draw().recipe("experiments/ranks")
    with pytest.raises(
        BuildError, match=r"adapter: an experiment has experiment, report; name one of its arms: "
    ):
        graph.node("adapter")


def test_an_experiment_that_is_not_there(place: Folder) -> None:
    with pytest.raises(BuildError, match=r"experiments/rank.yaml: no such experiment; did you mean ranks\?"):
        lay_out("rank", place.path("recipes"))
