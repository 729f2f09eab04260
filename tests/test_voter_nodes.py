"""The graph of a vote: who is asked, what is shared, and what an edit plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import workspace
from workflow.errors import BuildError
from workflow.graph import Graph
from workflow.node import Node
from workflow.recipe import load_recipe
from workflow.rehearsal import rehearsed

SMALL = workspace.RECIPE
VARIANTS = SMALL.replace(
    "max_length: 256", "max_length: 256, variants: {short: prompts/short.jinja, plain: prompts/copy.jinja}"
)
MEMBER = SMALL.replace("learning_rate: 3e-3", "learning_rate: 1e-3")
VOTED = VARIANTS.replace("rule: majority", "rule: majority, members: [member]")
HELD = "  validation: {path: data/held.jsonl, format: round1}\nprompt:"
WEIGHTED = VOTED.replace("prompt:", HELD, 1).replace("rule: majority", "rule: weighted, weights: accuracy")
HELD_MEMBER = MEMBER.replace("prompt:", HELD, 1).replace(
    "rule: majority", "rule: weighted, weights: accuracy"
)
FEW = SMALL.replace("max_length: 256", "max_length: 256, examples: {k: 2, select: random, seed: 1}")


@pytest.fixture
def place(tmp_path: Path) -> workspace.Folder:
    found = workspace.folder(tmp_path / "w")
    recipes = found.path("recipes")
    template = (recipes / "prompts/tiny.jinja").read_text()
    (recipes / "prompts/copy.jinja").write_text(template)
    (recipes / "prompts/short.jinja").write_text(template.replace("你是逻辑推理专家。", "答题。"))
    (recipes / "data/held.jsonl").write_text((recipes / "data/base.jsonl").read_text())
    (recipes / "member.yaml").write_text(MEMBER)
    return found


def drawn(place: workspace.Folder, text: str, name: str = "vote") -> Graph:
    place.path(f"recipes/{name}.yaml").write_text(text)
    return place.graph(name)


def voters(graph: Graph) -> dict[str, Node]:
    return {r.removeprefix("voter "): n for r, n in graph.node("voted").inputs.items() if r[:6] == "voter "}


def test_variants_are_shards_and_predictions_of_their_own(place: workspace.Folder) -> None:
    graph = drawn(place, VARIANTS)
    found = voters(graph)
    assert set(found) == {"own", "short", "plain"}
    assert found["own"] is graph.node("predictions")
    assert found["short"] is graph.node("predictions.short")
    assert found["short"].inputs["shards"] is graph.node("shards_test.short")
    assert found["short"].inputs["model"] is found["own"].inputs["model"]
    seeds = [node.slice["sampling"]["seed"] for node in found.values()]
    assert len(set(seeds)) == 3 and seeds[0] == 0  # equal seeds would draw alike
    alone = drawn(place, SMALL, "alone")
    for name in ("predictions", "greedy", "adapter", "shards_train"):  # trained on `template` alone
        assert graph.node(name).address == alone.node(name).address


def test_training_in_all_templates_has_their_files(place: workspace.Folder) -> None:
    alone = drawn(place, VARIANTS, "alone")
    graph = drawn(place, VARIANTS.replace("max_length", "train_variants: true, max_length"))
    trained = graph.node("shards_train")
    assert {role: path.name for role, path in trained.sources.items()} == {
        "template": "tiny.jinja", "template short": "short.jinja", "template plain": "copy.jinja",
    }  # fmt: skip
    assert graph.node("adapter").address != alone.node("adapter").address
    assert graph.node("shards_test").address == alone.node("shards_test").address


def test_a_members_predictions_are_its_own_nodes(place: workspace.Folder) -> None:
    graph, member = drawn(place, VOTED), place.graph("member")
    assert voters(graph)["member"].address == member.node("predictions").address
    assert "rows of member" not in graph.node("voted").inputs  # the very same rows
    nested = drawn(place, SMALL.replace("rule: majority", "rule: majority, members: [vote]"), "nested")
    assert set(voters(nested)) == {"own", "vote", "vote/short", "vote/plain"}  # not the members of members


def test_rows_read_from_elsewhere_are_compared(place: workspace.Folder) -> None:
    place.path("recipes/data/again.jsonl").write_text(
        place.path("recipes/data/test.jsonl").read_text() + "\n"
    )
    (place.path("recipes") / "member.yaml").write_text(MEMBER.replace("data/test.jsonl", "data/again.jsonl"))
    graph = drawn(place, VOTED)
    assert graph.node("voted").inputs["rows of member"] is not graph.node("rows_test")


def test_validation_rows_are_answered_by_every_voter(place: workspace.Folder) -> None:
    place.path("recipes/member.yaml").write_text(HELD_MEMBER)
    graph = drawn(place, WEIGHTED)
    inputs = graph.node("voted").inputs
    assert {role for role in inputs if role.startswith("weighed ")} == {
        "weighed own", "weighed short", "weighed plain", "weighed member",
    }  # fmt: skip
    assert inputs["weighing rows"] is graph.node("rows_validation")
    assert inputs["weighed short"].inputs["shards"].inputs["rows"] is graph.node("rows_validation")
    without = drawn(place, SMALL, "without")
    assert graph.node("adapter").address == without.node("adapter").address


@pytest.mark.parametrize(
    ("recipe", "member", "message"),
    [
        (VOTED, MEMBER[: MEMBER.index("sampling:")], "recipe member has no sampling and test rows"),
        (WEIGHTED, MEMBER, "recipe member has no dataset.validation"),
        (WEIGHTED, HELD_MEMBER.replace("held", "train"), "recipe member is weighed by other rows"),
        (
            VOTED.replace("rule: majority", "rule: weighted, weights: {own: 2, shrot: 1}"),
            MEMBER,
            "voting.weights: shrot is no voter; there are own, short, plain, member",
        ),
        (
            VOTED.replace("n: 3", "n: 3, logprobs: true").replace(
                "rule: majority", "rule: weighted, weights: logprob"
            ),
            MEMBER,
            "logprob needs `sampling.logprobs: true` in recipe member too",
        ),
        (VOTED, MEMBER.replace("rule: majority", "rule: majority, members: [vote]"), "in a circle: vote"),
    ],
)
def test_who_cannot_vote(place: workspace.Folder, recipe: str, member: str, message: str) -> None:
    place.path("recipes/member.yaml").write_text(member)
    with pytest.raises(BuildError, match=message):
        drawn(place, recipe)


def to_make(place: workspace.Folder, graph: Graph, name: str = "voted") -> list[str]:
    """Products that are not there and that one of them is made from."""
    return [n.product for n in graph.node(name).closure() if not place.store.built(n.product, n.address)]


def test_voting_again_generates_nothing(place: workspace.Folder) -> None:
    """Whatever of the vote changes, only votes and what is made of them are to be made."""
    drawn(place, VOTED)
    workspace.pretend(place, "vote")
    for old, new in (
        ("ties: first", "ties: seeded, seed: 4"),
        ("match: last", "match: first, normalise: text"),
        ("match: last", "match: last, map: {a: A}"),
        ("rule: majority", "rule: weighted, weights: {member: 2}"),
        (", members: [member]", ""),
        (", plain: prompts/copy.jinja", ""),
    ):
        assert to_make(place, drawn(place, VOTED.replace(old, new)), "scores") == ["voted", "scores"]
    again = place.planned("results/vote/voted.jsonl", "results/vote/scores.json")
    assert again == {"voted": 1, "scores": 1, "publish": 2}


def test_another_variant_is_asked_and_nothing_else(place: workspace.Folder) -> None:
    drawn(place, SMALL)
    workspace.pretend(place, "vote")
    more = SMALL.replace("max_length: 256", "max_length: 256, variants: {short: prompts/short.jinja}")
    assert to_make(place, drawn(place, more)) == ["shards", "predictions", "voted"]


def test_examples_are_made_of_training_rows_and_not_the_other_way(place: workspace.Folder) -> None:
    graph, alone = drawn(place, FEW), drawn(place, SMALL, "alone")
    for split in ("train", "test"):
        assert graph.node(f"shards_{split}").inputs["examples"] is graph.node("rows_train")
        assert graph.node(f"shards_{split}").address != alone.node(f"shards_{split}").address
    workspace.pretend(place, "vote")
    place.edit("data/test.jsonl", "。", "！")
    assert to_make(place, place.graph("vote")) == ["rows", "shards", "predictions", "voted"]


def test_examples_without_training(place: workspace.Folder) -> None:
    lines = [line for line in FEW.splitlines() if not line.startswith(("tuning", "training", "deepspeed"))]
    graph = drawn(place, "\n".join(lines).replace("compare: [base]", "compare: []"))
    assert "adapter" not in graph.products
    assert graph.node("predictions").inputs["shards"].inputs["examples"] is graph.node("rows_train")


def test_rehearsals_vote_too(place: workspace.Folder) -> None:
    place.path("recipes/member.yaml").write_text(VARIANTS)
    path = place.path("recipes/vote.yaml")
    path.write_text(VOTED.replace("rule: majority", "rule: weighted, weights: {own: 2, member/short: 3}"))
    voting = rehearsed(load_recipe(path), path).voting
    assert voting and voting.members == ["rehearsal/member"]
    assert voting.weights == {"own": 2, "rehearsal/member/short": 3}
    graph = place.graph("rehearsal/vote")
    assert set(voters(graph)) == {
        "own", "short", "plain",
        "rehearsal/member", "rehearsal/member/short", "rehearsal/member/plain",
    }  # fmt: skip
