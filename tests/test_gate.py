"""The data gate: what is counted, what is refused, and what is proven of every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_conversations import CHAT, TALK, row, turns
from token_rows import job, tokenizer
from token_rows import row as single
from workspace import folder

from workflow.errors import BuildError
from workflow.gate import of_overlap, of_rows, share
from workflow.products import shards
from workflow.prompts import PromptTemplate
from workflow.tokenizing import Tokenizing
from workflow.tokens import read_rows


def counted(
    tmp_path: Path, rows: list[dict[str, Any]], split: str = "train", **chosen: Any
) -> dict[str, Any]:
    one = job(tmp_path, rows, split, chosen.pop("overflow", "error"), chosen.pop("limits", 10_000))
    one.slice.update(chosen)
    if rows[0]["turns"]:
        one.sources["template"].write_text(CHAT)
    return shards.make(one)


def test_rows_that_say_the_same(tmp_path: Path) -> None:
    rows = [single(1, "一"), single(2, "一"), single(3, "一", "案"), single(4, "二"), single(5, "一")]
    assert counted(tmp_path / "a", rows)["duplicates"] == 2
    assert counted(tmp_path / "b", rows, "test")["duplicates"] == 3
    counted(tmp_path / "c", rows, gate={"max_duplicates": 0.4})
    with pytest.raises(
        BuildError, match=r"2 of 5 rows \(40.0%\) say what another row says, .*duplicates 0.39"
    ):
        counted(tmp_path / "d", rows, gate={"max_duplicates": 0.39})


def test_equal_rows_of_two_shards_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow.sorting.SHARD_ROWS", 2)
    rows = [single(number, "一二三四五六七八"[number % 4]) for number in range(40)]
    assert counted(tmp_path, rows)["duplicates"] == 36
    assert len(list((tmp_path / "out").glob("shard-*"))) > 5


def test_too_few_tokens_are_trained(tmp_path: Path) -> None:
    counts = counted(tmp_path / "a", [single(1, "一" * 50)])
    trained = counts["trained_tokens"] / counts["tokens"]
    counted(tmp_path / "b", [single(1, "一" * 50)], gate={"min_trained": trained - 1e-6})
    with pytest.raises(BuildError, match=r"of the training tokens are trained, less than gate.min_trained"):
        counted(tmp_path / "c", [single(1, "一" * 50)], gate={"min_trained": trained + 1e-6})


def test_answers_lost(tmp_path: Path) -> None:
    talk = [dict(turn) for turn in TALK]
    every = {"train_on": "all_assistant"}
    whole = counted(tmp_path / "whole", [row(talk)], **every)
    short = {**every, "overflow": "drop_oldest_turn", "limits": whole["tokens"] - 1}
    counts = counted(tmp_path / "short", [row(talk)], **short)
    assert (counts["truncated"], counts["lost_answers"], counts["dropped"]) == (1, 1, 0)
    long = {**row([*TALK[:-1], {"role": "assistant", "content": "答" * 500}]), "id": "r2"}
    counts = counted(tmp_path / "drop", [row(talk), long], **every, overflow="drop", limits=whole["tokens"])
    assert (counts["dropped"], counts["lost_answers"], counts["rows"]) == (1, 3, 1)
    asked = counted(tmp_path / "asked", [row(talk)], "test", **every)["tokens"]
    counts = counted(tmp_path / "test", [row(talk)], "test", **{**short, "limits": asked - 1})
    assert (counts["truncated"], counts["lost_answers"]) == (1, 0)


def asking(tmp_path: Path, **chosen: Any) -> tuple[Tokenizing, list[Any]]:
    one = job(tmp_path, [])
    one.sources["template"].write_text(CHAT)
    template = PromptTemplate(one.sources["template"])
    found = Tokenizing({**one.slice, **chosen}, template, tokenizer(), False)
    return found, found.asked([json.dumps(row(turns("一", "答", "二", "答"))).encode()])


def test_what_is_trained_must_end_where_generation_stops(tmp_path: Path) -> None:
    work, asked = asking(tmp_path, train_on="all_assistant")
    assert work.rows(asked)[0].trained.sum() == 4
    work.renderer.chat.stop_ids[:] = [5]  # serving stops elsewhere than the renderer believes
    with pytest.raises(BuildError, match=r"row r1: what is trained ends with '<\|im_end\|>', where no gen"):
        work.rows(asked)


def test_stop_strings_of_plain_text_are_seen(tmp_path: Path) -> None:
    work, asked = asking(tmp_path, chat_template="plain", stop="### End")
    assert len(work.rows(asked)) == 1
    work.renderer.stop = "### Ende"
    with pytest.raises(BuildError, match="row r1: what is trained ends with 'e', where no generation"):
        work.rows(asked)


def test_rows_that_are_trained_whole_do_not_hide_each_other(tmp_path: Path) -> None:
    rows = [{**row([]), "id": f"r{n}", "target": {"text": "从前有座山"[:n]}} for n in range(1, 6)]
    one = job(tmp_path, rows)
    one.slice.update(chat_template="plain", train_on="all")
    one.sources["template"].write_text("{% block assistant %}{{ text }}{% endblock %}")
    counts = shards.make(one)
    assert counts["trained_tokens"] == counts["tokens"] and counts["rows"] == 5


def test_training_waits_for_the_gate_of_its_rows_and_for_no_test_row(tmp_path: Path) -> None:
    place = folder(tmp_path / "w")
    place.edit("small.yaml", "voting:", "gate: {max_duplicates: 0.1, max_contaminated: 0.1}\nvoting:")
    graph = place.graph("small")
    behind = {name: {node.product for node in graph.node(name).closure()} for name in ("adapter", "scores")}
    assert graph.node("shards_train") in graph.node("adapter").inputs.values()
    assert "overlap" in behind["scores"] and "overlap" not in behind["adapter"]
    place.edit("data/test.jsonl", "A", "B")
    again = place.graph("small")
    same = {name for name in graph.products if graph.node(name).address == again.node(name).address}
    assert {"shards_train", "adapter", "merged"} <= same
    assert not same & {"rows_test", "overlap", "scores", "report"}


def test_sentences(tmp_path: Path) -> None:
    counts = counted(
        tmp_path, [single(1, "一"), single(2, "一"), single(3, "一" * 90)], overflow="drop", limits=60
    )
    [one, _] = read_rows(tmp_path / "out")
    size = len(one.input_ids)
    assert list(of_rows(counts, True)) == [
        f"2 rows of {2 * size} tokens; the longest has {size}.",
        f"4 tokens are trained, {2 / size:.1%} of all.",
        "Every row has a trained token, and all that is trained ends where generation stops.",
        "1 of 3 rows (33.3%) met the limits: 1 left out; lost with them: 1 answer.",
        "1 row (50.0%) repeating another before, prompt and answer.",
    ]
    found = {"test_rows": 1000, "contaminated_test_rows": 0, "longest_match": 0}
    assert list(of_overlap(found)) == ["None of the 1,000 test rows is shown by a training row."]
    kinds = {"exact_test_rows": 1, "normalised_test_rows": 2, "similar_test_rows": 3}
    first, second = of_overlap({**found, **kinds, "contaminated_test_rows": 4, "longest_match": 77})
    assert first.startswith("4 of 1,000 test rows (0.4%) are shown by training rows: 1 word for word, 2 but")
    assert second.endswith("has 77 words.")


def test_shares() -> None:
    assert [share(0, 9), share(1, 9999), share(9998, 9999), share(9, 9), share(0, 0)] == [
        "0.0%", "less than 0.1%", "more than 99.9%", "100.0%", "0.0%",
    ]  # fmt: skip
