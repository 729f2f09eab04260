"""The node of the vote, made from all who vote: this recipe's prompts one by one, and other recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from workflow.errors import BuildError
from workflow.node import Node
from workflow.recipe import Recipe
from workflow.recipe.answers import OWN
from workflow.recipe.leaf import slice_of
from workflow.store.address import address_of

if TYPE_CHECKING:
    from workflow.graph import Graph

ANSWERS = {"test": "predictions", "validation": "validation"}
"""Split -> name of its predictions in a graph; those of a variant have its name behind a dot."""
VOTER, ROWS_OF = "voter ", "rows of "
"""Roles: a voter's predictions before the voter's name; a member's test rows, where they are not ours."""
WEIGHED, WEIGHING = "weighed ", "weighing rows"
"""Roles: a voter's predictions of the rows that voters are weighed by, and these rows."""


def voted_node(
    recipe: Recipe, found: Mapping[str, Node], node: Callable[..., Node], other: Callable[[str], Graph]
) -> Node:
    """The vote of all voters.

    Args:
        recipe: What says who votes.
        found: Its rows and predictions, by name.
        node: Makes a node of the recipe.
        other: Draws another recipe.

    Raises:
        BuildError: A member has no such predictions, or a weight is of nobody.
    """
    voting = recipe.voting
    assert voting
    members = {name: other(name) for name in voting.members}
    inputs = {VOTER + name: voter for name, voter in _voters(found, members, "test").items()}
    inputs |= {"rows": found["rows_test"], **_rows_of(members, found["rows_test"])}
    if voting.weights == "accuracy":
        inputs[WEIGHING] = found["rows_validation"]
        inputs |= {WEIGHED + name: voter for name, voter in _voters(found, members, "validation").items()}
        _refuse_other_rows(found["rows_validation"], members)
    if isinstance(voting.weights, dict):
        voters = [role.removeprefix(VOTER) for role in inputs if role.startswith(VOTER)]
        _refuse_unknown(voting.weights, voters)
    if voting.weights == "logprob":
        _refuse_without_logprobs({name: graph.recipe for name, graph in members.items()})
    return node("voted", slice=slice_of(voting, "voted"), inputs=inputs)


def seed_of_variant(seed: int, name: str) -> int:
    """The seed of a variant's draws, 63 bits: with the same chance in both, two prompts would draw alike."""
    return int(address_of([seed, name])[:16], 16) >> 1


def _voters(found: Mapping[str, Node], members: Mapping[str, Graph], split: str) -> dict[str, Node]:
    """Voter -> predictions: own, those of variants, then members' own and those of their variants."""
    voters = {name or OWN: node for name, node in _answers(found, split).items()}
    for member, graph in members.items():
        answers = _answers(graph.products, split)
        if "" not in answers:
            missing = "sampling and test rows" if split == "test" else "dataset.validation"
            raise BuildError(f"voting.members: recipe {member} has no {missing}, so it cannot vote; add them")
        voters |= {f"{member}/{name}" if name else member: node for name, node in answers.items()}
    return voters


def _answers(products: Mapping[str, Node], split: str) -> dict[str, Node]:
    """Variant -> predictions of a split; "" is the recipe's own template."""
    whole = ANSWERS[split]
    return {
        name[len(whole) + 1 :]: node
        for name, node in products.items()
        if name == whole or name.startswith(f"{whole}.")
    }


def _rows_of(members: Mapping[str, Graph], rows: Node) -> dict[str, Node]:
    """Rows of members that are read from something else: row by row they must be the same."""
    own = {name: graph.products.get("rows_test") for name, graph in members.items()}
    return {ROWS_OF + name: node for name, node in own.items() if node and node.address != rows.address}


def _refuse_other_rows(rows: Node, members: Mapping[str, Graph]) -> None:
    for name, graph in members.items():
        if graph.node("rows_validation").address != rows.address:
            raise BuildError(
                f"voting.members: recipe {name} is weighed by other rows; give both one dataset.validation"
            )


def _refuse_unknown(weights: Iterable[str], voters: list[str]) -> None:
    if unknown := sorted(set(weights) - set(voters)):
        raise BuildError(f"voting.weights: {unknown[0]} is no voter; there are {', '.join(voters)}")


def _refuse_without_logprobs(members: Mapping[str, Recipe]) -> None:
    for name, recipe in members.items():
        if not recipe.sampling or not recipe.sampling.logprobs:
            raise BuildError(f"voting.weights: logprob needs `sampling.logprobs: true` in recipe {name} too")
