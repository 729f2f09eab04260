"""mixture: several sources as one, samples that growing data keep, duplicates, weights."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from workspace import Folder, folder

from workflow import sorting
from workflow.errors import BuildError
from workflow.products import MAKERS
from workflow.settle import settle
from workflow.sorting import read_cuts
from workflow.store.build import Resources, build
from workflow.tokens import read_rows

RECIPE = """\
dataset: {train: TRAIN}
prompt: {template: prompts/p.jinja, max_length: 256}
model: {base: {scratch: models/tiny-qwen2}, dtype: float32}
tuning: {method: full}
training: {epochs: 1, learning_rate: 3e-3, batch_size: 8, seed: 1}
"""
TEMPLATE = "{% block user %}{{ q }}{% endblock %}{% block assistant %}{{ a }}{% endblock %}"
SOURCE = "path: data/NAME.jsonl, format: columns, prompt: {q: q}, target: {a: a}"


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    found = folder(tmp_path)
    (found.root / "recipes/prompts/p.jinja").write_text(TEMPLATE)
    return found


def write(place: Folder, name: str, numbers: Any, **more: Any) -> None:
    lines = [
        json.dumps({"q": f"{name if more.get('own') else 'q'} {n}", "a": str(n)}) + "\n" for n in numbers
    ]
    (place.root / f"recipes/data/{name}.jsonl").write_text("".join(lines))


def source(name: str, more: str = "") -> str:
    return "{" + SOURCE.replace("NAME", name) + (f", {more}" if more else "") + "}"


def made(
    place: Folder, train: str, product: str = "rows_train"
) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    (place.root / "recipes/mixed.yaml").write_text(RECIPE.replace("TRAIN", train))
    node = place.graph("mixed").node(product)
    settle(place.store, node)
    for inner in node.closure():
        receipt = build(
            place.store, inner.product, inner.address, MAKERS[inner.product], Resources(threads=1)
        )
    out = place.store.folder(node.product, receipt.key)
    lines = (out / "rows.jsonl").read_text().splitlines() if product == "rows_train" else []
    return dict(receipt.manifest.counts), [json.loads(line) for line in lines], out


def texts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"]["q"] for row in rows}


def test_several_sources(place: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "SHARD_ROWS", 5)
    write(place, "one", range(20))
    write(place, "two", range(10, 40))
    both = f"{{format: mixture, sources: {{one: {source('one')}, two: {source('two')}}}}}"
    counts, rows, out = made(place, both)
    assert (counts["rows"], counts["of"], counts["duplicates"]) == (50, {"one": 20, "two": 30}, 0)
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))
    assert {i.partition("/")[0] for i in ids} == {"one", "two"}
    assert sum(cut.bytes for cut in read_cuts(out / "cuts.json")) == (out / "rows.jsonl").stat().st_size
    assert len(read_cuts(out / "cuts.json")) > 3
    counts, rows, _ = made(place, both.replace("mixture,", "mixture, sample: {deduplicate: true},"))
    assert (counts["rows"], counts["duplicates"], len(texts(rows))) == (40, 10, 40)
    _, _, shards = made(place, both, "shards_train")
    assert [row.id for row in read_rows(shards)] == ids


def test_a_source_alone_is_no_mixture(place: Folder) -> None:
    write(place, "one", range(5))
    (place.root / "recipes/mixed.yaml").write_text(RECIPE.replace("TRAIN", source("one")))
    assert place.graph("mixed").node("rows_train").product == "rows"
    plain = place.graph("mixed").node("rows_train").address
    (place.root / "recipes/mixed.yaml").write_text(
        RECIPE.replace("TRAIN", source("one", "sample: {deduplicate: true, n: 3}"))
    )
    mixed = place.graph("mixed").node("rows_train")
    assert (mixed.product, mixed.inputs[""].address) == ("mixture", plain)


def test_duplicates_of_one_source(place: Folder) -> None:
    write(place, "one", [1, 2, 2, 3, 3, 3])
    counts, rows, _ = made(place, source("one", "sample: {deduplicate: true}"))
    assert (counts["rows"], counts["duplicates"], texts(rows)) == (3, 3, {"q 1", "q 2", "q 3"})


@pytest.mark.parametrize("asked", ["n: 100", "share: 0.25"])
def test_a_sample_of_growing_data_keeps_earlier_picks(place: Folder, asked: str) -> None:
    write(place, "one", range(400))
    counts, few, _ = made(place, source("one", f"sample: {{{asked}, seed: 3}}"))
    assert counts["not_sampled"] == 400 - len(few)
    assert len(few) == 100 if asked == "n: 100" else 70 < len(few) < 130
    numbers = list(range(800))
    random.Random(1).shuffle(numbers)
    write(place, "one", numbers)
    _, more, _ = made(place, source("one", f"sample: {{{asked.replace('100', '200')}, seed: 3}}"))
    stay = len(texts(few) & texts(more)) / len(few)
    assert stay == 1 if asked != "n: 100" else stay > 0.8
    _, other, _ = made(place, source("one", f"sample: {{{asked}, seed: 4}}"))
    assert texts(other) != texts(few)
    if asked == "n: 100":
        assert texts(made(place, source("one", "sample: {n: 150, seed: 4}"))[1]) >= texts(other)


def test_more_than_there_is(place: Folder) -> None:
    write(place, "one", range(7))
    counts, rows, _ = made(place, source("one", "sample: {n: 100}"))
    assert (len(rows), counts["not_sampled"]) == (7, 0)
    with pytest.raises(BuildError, match="no row is left of the sources"):
        made(place, source("one", "sample: {share: 1e-9}"))


def test_a_weight_repeats_rows(place: Folder) -> None:
    write(place, "one", [*range(8), 71, 711])
    write(place, "two", range(100, 104))
    weighted = source("one", "sample: {repeat: 3}")
    both = (
        f"{{format: mixture, sources: {{one: {weighted}, two: {source('two')}}}, sample: {{n: 30, seed: 1}}}}"
    )
    counts, rows, _ = made(place, both)
    assert (counts["rows"], counts["of"], counts["not_sampled"]) == (30, {"one": 30, "two": 4}, 4)
    ids = [row["id"] for row in rows]
    assert ids == sorted(set(ids))


def test_choices_that_cannot_be_written(place: Folder) -> None:
    write(place, "one", range(3))
    for wrong, message in (
        ("{n: 3, share: 0.5}", "give n or share, not both"),
        ("{seed: 1}", "give n, share, deduplicate or repeat"),
        ("{n: 0}", "greater than 0"),
    ):
        with pytest.raises(BuildError, match=message):
            made(place, source("one", f"sample: {wrong}"))
    with pytest.raises(BuildError, match=r"dataset.train.sources"):
        made(place, "{format: mixture, sources: {}}")
