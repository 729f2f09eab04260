"""Few-shot examples: from the training rows, never the row itself, never anything that tells its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from token_rows import job, row, tokenizer, write_rows

from workflow.errors import BuildError
from workflow.examples import Examples
from workflow.products import shards
from workflow.rendering import Renderer
from workflow.store.build import Job
from workflow.store.records import Manifest
from workflow.tokens import read_rows

SELECTS = ("fixed", "random", "similar")
TEMPLATE = (
    "{% block user %}{% for one in examples %}{{ one.text }}={{ one.answer }};{% endfor %}{{ text }}=?"
    "{% endblock %}{% block assistant %}{{ answer }}{% endblock %}"
)


def chosen(select: str, k: int = 2, seed: int = 1) -> dict[str, Any]:
    return {"k": k, "select": select, "seed": None if select == "similar" else seed}


def pool(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    (folder / "manifest.json").write_bytes(Manifest(files={}, counts={}).body)
    return folder


def training(count: int = 12) -> list[dict[str, Any]]:
    return [
        row(i, f"问题 {chr(0x4E00 + i)} 和 {chr(0x4E00 + i // 2)}", chr(0x4E50 + i)) for i in range(count)
    ]


def texts(examples: Examples, asked: dict[str, Any]) -> list[str]:
    return [one["text"] for one in examples.shown(asked)["prompt"]["examples"]]


@pytest.mark.parametrize("select", SELECTS)
def test_all_fields_of_training_rows_and_their_answers(tmp_path: Path, select: str) -> None:
    rows = training()
    shown = Examples(pool(tmp_path, rows), chosen(select)).shown(row(900, "问题"))
    known = [{**one["prompt"], **one["target"]} for one in rows]
    examples = shown["prompt"]["examples"]
    assert len(examples) == 2 and examples[0] != examples[1]
    assert all(one in known for one in examples)


@pytest.mark.parametrize("select", SELECTS)
def test_a_row_is_never_shown_itself_or_its_like(tmp_path: Path, select: str) -> None:
    rows = training()
    for one in rows:  # two questions of each problem
        one["group"] = f"p{int(one['id'][1:]) // 2}"
    examples = Examples(pool(tmp_path, rows), chosen(select, k=10))
    for one in rows:
        shown = texts(examples, one)
        assert one["prompt"]["text"] not in shown
        assert not {o["prompt"]["text"] for o in rows if o["group"] == one["group"]} & set(shown)
        test_row = row(800, one["prompt"]["text"].replace(" ", "") + "？")  # another id, said otherwise
        assert one["prompt"]["text"] not in texts(examples, test_row)
    with pytest.raises(BuildError, match=r"row r000: prompt\.examples\.k is 11; training rows to show: 10"):
        Examples(tmp_path, chosen(select, k=11)).shown(rows[0])


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_of_its_own_is_in_any_prompt(tmp_path: Path, select: str, split: str) -> None:
    """Each row has an answer that is nowhere else; a leak of any kind would put it into its prompt."""
    rows = training()
    asked = rows if split == "train" else [row(500 + i, f"问 {i}", chr(0x5000 + i)) for i in range(8)]
    asked += [] if split == "train" else [{**rows[3], "id": "copy"}]
    examples = Examples(pool(tmp_path, rows), chosen(select, k=4))
    for one in asked:
        prompt = json.dumps(examples.shown(one)["prompt"], ensure_ascii=False)
        assert one["target"]["answer"] not in prompt


@pytest.mark.parametrize("select", SELECTS)
def test_the_answer_of_a_test_row_changes_no_prompt(tmp_path: Path, select: str) -> None:
    examples = Examples(pool(tmp_path, training()), chosen(select))
    one, other = row(900, "问题 一", "X"), row(900, "问题 一", "Y")
    assert examples.shown(one)["prompt"] == examples.shown({**other, "gold": ["Y"]})["prompt"]


def test_fixed_are_the_same_for_all_but_by_the_seed(tmp_path: Path) -> None:
    folder = pool(tmp_path, training())
    examples = Examples(folder, chosen("fixed"))
    assert len({tuple(texts(examples, row(900 + i, f"q{i}"))) for i in range(9)}) == 1
    seeds = {tuple(texts(Examples(folder, chosen("fixed", seed=s)), row(900, "q"))) for s in range(9)}
    assert len(seeds) > 5


def test_random_goes_by_the_id_and_stays_when_others_come(tmp_path: Path) -> None:
    rows = training(60)
    examples = Examples(pool(tmp_path / "a", rows), chosen("random"))
    asked = [row(900 + i, "q") for i in range(40)]
    before = [texts(examples, one) for one in asked]
    assert before == [texts(examples, one) for one in asked]
    assert len(set(map(tuple, before))) > 30
    more = Examples(pool(tmp_path / "b", [*rows, row(99, "one more")]), chosen("random"))
    assert sum(texts(more, one) != b for one, b in zip(asked, before, strict=True)) < 8
    assert len({text for shown in before for text in shown}) > 30


def test_similar_puts_the_most_similar_last(tmp_path: Path) -> None:
    rows = [row(1, "the cat sat"), row(2, "a dog ran"), row(3, "the cat ran home"), row(4, "stars shine")]
    examples = Examples(pool(tmp_path, rows), chosen("similar"))
    assert texts(examples, row(9, "the cat ran")) == ["the cat sat", "the cat ran home"]
    equal = [row(i, f"{word} same") for i, word in enumerate("abcd")]
    assert texts(Examples(pool(tmp_path, equal), chosen("similar")), row(9, "same")) == ["b same", "a same"]


def test_a_field_of_that_name_is_refused(tmp_path: Path) -> None:
    examples = Examples(pool(tmp_path, training()), chosen("fixed"))
    asked = row(900, "q")
    asked["prompt"]["examples"] = "mine"
    with pytest.raises(BuildError, match=r"its field 'examples' is in the way of prompt"):
        examples.shown(asked)


def few_shot(tmp_path: Path, rows: list[dict[str, Any]], train: list[dict[str, Any]], select: str) -> Job:
    made = job(tmp_path, rows, "test", pieces=tmp_path.parent / "pieces")
    (tmp_path / "p.jinja").write_text(TEMPLATE)
    made.slice["examples"] = chosen(select)
    made.inputs["examples"] = pool(tmp_path / "train", train)
    return made


@pytest.mark.parametrize("select", SELECTS)
def test_shards_hold_the_examples_and_follow_them(tmp_path: Path, select: str) -> None:
    """The pieces are shared: another pool of training rows must not find the shards of this one."""
    rows, train = [row(900, "问题", rendered="x"), row(901, "问题 二")], training(4)
    prompts = []
    for number, pool_rows in enumerate((train, train[:3], train)):
        made = few_shot(tmp_path / f"{number}", rows, pool_rows, select)
        shards.make(made)
        decode = Renderer(tokenizer()).backend.decode
        prompts.append([decode(one.input_ids.tolist()) for one in read_rows(made.out)])
    assert prompts[0] == prompts[2]
    allowed = [f"{one['prompt']['text']}={one['target']['answer']};" for one in train]
    for place, told in enumerate(prompts):
        for prompt in told:
            assert sum(one in prompt for one in (allowed[:3] if place == 1 else allowed)) == 2
    assert (prompts[0] != prompts[1]) or not any(allowed[3] in prompt for prompt in prompts[0])
