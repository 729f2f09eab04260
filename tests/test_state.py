"""Quick looks at a store agree with the careful reading that a build does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import Folder, folder, pretend

from workflow.node import Node
from workflow.state import Look, in_flow, names


@pytest.fixture
def built(tmp_path: Path) -> Folder:
    place = folder(tmp_path / "it")
    pretend(place, "small")
    return place


def nothing(place: Folder, node: Node, key: str) -> None:
    pass


def no_receipt(place: Folder, node: Node, key: str) -> None:
    place.store.file(node.product, node.address, ".json").unlink()


def no_folder(place: Folder, node: Node, key: str) -> None:
    shutil.rmtree(place.store.folder(node.product, key))


def no_manifest(place: Folder, node: Node, key: str) -> None:
    (place.store.folder(node.product, key) / "manifest.json").unlink()


@pytest.mark.parametrize("event", [nothing, no_receipt, no_folder, no_manifest], ids=lambda e: e.__name__)
def test_built_is_what_the_store_calls_built(
    built: Folder, event: Callable[[Folder, Node, str], None]
) -> None:
    node = built.graph("small").node("voted")
    key = Look(built.store).key("voted", node.address)
    assert key
    event(built, node, key)
    receipt = built.store.built("voted", node.address)
    assert Look(built.store).key("voted", node.address) == (receipt.key if receipt else None)


@pytest.mark.parametrize("text", ["", "{", '{"version":9,"address":"x"}', "receipt of another version"])
def test_a_receipt_of_an_unknown_form_is_none(built: Folder, text: str) -> None:
    node = built.graph("small").node("voted")
    built.store.file("voted", node.address, ".json").write_text(text)
    assert Look(built.store).key("voted", node.address) is None


def test_a_receipt_of_another_address_is_none(built: Folder) -> None:
    products = built.graph("small").products
    one, other = (built.store.file("predictions", products[n].address, ".json") for n in ("base", "greedy"))
    shutil.copy(one, other)
    assert Look(built.store).key("predictions", products["greedy"].address) is None


def test_what_is_behind_a_finished_product_is_not_needed(built: Folder) -> None:
    products = built.graph("small").products
    key = Look(built.store).key("merged", products["merged"].address)
    assert key
    shutil.rmtree(built.store.folder("merged", key))
    assert not Look(built.store).needed([products["scores"]])
    needed = Look(built.store).needed([products["merged"], products["scores"]])
    assert list(needed.values()) == [products["merged"]]


def test_the_flow_starts_with_the_base(built: Folder) -> None:
    draw = built.draw()
    known = names(draw, "small")
    flow = [known[node.address] for node in in_flow(draw.recipe("small").products.values(), known)]
    assert flow[:2] == ["small-base/rows_train", "small-base/tokenizer"]
    assert flow.index("small-base/merged") < flow.index("rows_test") < flow.index("adapter")
    assert flow[-1] == "report"
    assert len(set(flow)) == len(flow)


def test_names_reach_through_recipes(built: Folder) -> None:
    text = built.path("recipes/small.yaml").read_text()
    built.path("recipes/third.yaml").write_text(text.replace("recipe: small-base", "recipe: small"))
    known = names(built.draw(), "third")
    flow = list(dict.fromkeys(name.rpartition("/")[0] for name in known.values()))
    assert flow == ["", "small", "small-base"]
    assert "small-base/adapter" in known.values()
