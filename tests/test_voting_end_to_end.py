"""Two prompts and another recipe vote, with vLLM: few-shot, weighed by the certainty of their own draws."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from workspace import Folder, folder

from workflow.curves import read_curves

pytestmark = pytest.mark.slow

RECIPE = """\
dataset:
  train: {path: data/train.jsonl, format: round1}
  test: {path: data/test.jsonl, format: round1}
prompt: {template: prompts/few.jinja, variants: {short: prompts/short.jinja}, max_length: 900, overflow: drop,
  examples: {k: 1, select: similar}}
model: {base: {stand_in: {like: models/tiny-qwen2}}, dtype: float32}
sampling: {n: 3, temperature: 1.0, max_tokens: 24, seed: 0, logprobs: true}
voting: {answer: {pattern: '([A-D])', match: last}, members: [member],
  rule: weighted, weights: logprob, ties: seeded, seed: 3}
"""
MEMBER = RECIPE.replace("max_tokens: 24, seed: 0", "max_tokens: 24, seed: 5").replace(
    " variants: {short: prompts/short.jinja},", ""
)
MEMBER = MEMBER[: MEMBER.index("voting:")]
FEW = """\
{% block user %}{% for one in examples %}{{ one.question }} {{ one.reasoning }}
{% endfor %}{{ problem }}{{ question }}{% endblock %}
{% block assistant %}{{ reasoning }}{% endblock %}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    place = folder(tmp_path_factory.mktemp("vote") / "it", base=1, train=6, test=6)
    for name, text in {"vote": RECIPE, "member": MEMBER}.items():
        place.path(f"recipes/{name}.yaml").write_text(text)
    place.path("recipes/prompts/few.jinja").write_text(FEW)
    place.path("recipes/prompts/short.jinja").write_text(FEW.replace("{{ problem }}", ""))
    place.make("vote", "voted")
    return place


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def product(place: Folder, name: str) -> Path:
    node = place.graph("vote").node(name)
    receipt = place.store.built(node.product, node.address)
    assert receipt
    return place.store.folder(node.product, receipt.key)


def test_the_vote_is_that_of_all_draws(built: Folder) -> None:
    inputs = built.graph("vote").node("voted").inputs
    assert [role for role in inputs if role.startswith("voter")] == [
        "voter own", "voter short", "voter member",
    ]  # fmt: skip
    sums: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for role in ("voter own", "voter short", "voter member"):
        receipt = built.store.built(inputs[role].product, inputs[role].address)
        assert receipt
        folder = built.store.folder("predictions", receipt.key)
        for line in lines(folder / "predictions.jsonl"):
            for draw in line["draws"]:
                assert draw["logprob"] < 0
                texts[role].add(draw["text"])
                letters = [letter for letter in draw["text"] if letter in "ABCD"]
                if letters:
                    sums[line["id"]][letters[-1]] += math.exp(draw["logprob"])
    assert not texts["voter own"] & texts["voter short"] and not texts["voter own"] & texts["voter member"]
    voted = lines(product(built, "voted") / "voted.jsonl")
    assert len(voted) == 6 and any(line["answer"] for line in voted)
    for line in voted:
        expected = dict(sums[line["id"]])
        assert line["weights"] == pytest.approx(expected, abs=1e-8)
        assert line["answer"] == max(expected, key=expected.__getitem__, default=None)
        assert sum(line["votes"].values()) + line["abstentions"] == 9


def test_curves_of_three_voters(built: Folder) -> None:
    curves = read_curves(product(built, "voted"))
    assert curves and (curves.draws, curves.method) == (9, "enumerated")
    assert [(voter.name, voter.draws) for voter in curves.voters] == [("own", 3), ("short", 3), ("member", 3)]
    voted = lines(product(built, "voted") / "voted.jsonl")
    assert curves.points[-1].accuracy == pytest.approx(sum(line["correct"] for line in voted) / 6)


def test_voting_otherwise_starts_no_model(built: Folder) -> None:
    built.edit("vote.yaml", "weights: logprob", "weights: {own: 5}")
    node = built.graph("vote").node("voted")
    missing = [n.product for n in node.closure() if not built.store.built(n.product, n.address)]
    assert missing == ["voted"]
    built.make("vote", "voted")
    voted = lines(product(built, "voted") / "voted.jsonl")
    assert {5.0, 1.0} <= {weight for line in voted for weight in line["weights"].values()}
