"""Leaks that were planted, against a naive search; and how long it takes."""

from __future__ import annotations

import json
import random
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow import leaks as module
from workflow.errors import BuildError
from workflow.leaks import COMMON, SHOWN, WORDS, Leaks, Told
from workflow.products import overlap
from workflow.store.build import Job
from workflow.words import grams, words

LETTERS = "天地玄黄宇宙洪荒日月盈昃辰宿列张"


def sentence(chance: random.Random, count: int) -> str:
    return " ".join("".join(chance.choices("abcdefgh", k=5)) for _ in range(count))


def found(train: list[str], test: list[str], problems: list[str] | None = None) -> tuple[list[tuple], int]:
    names = problems or [f"t{i}" for i in range(len(test))]
    leaks = Leaks(Told(f"t{i}", names[i], [text]) for i, text in enumerate(test))
    leaks.show(Told(f"r{i}", "", [text]) for i, text in enumerate(train))
    rows, longest = leaks.found()
    return [tuple(leak) for leak in rows], longest


def test_what_a_word_is() -> None:
    assert words("Don't stop_it, Café 3.5!") == ["Don", "t", "stop", "it", "Café", "3", "5"]
    assert words("我有iPhone 15吗？") == ["我", "有", "iPhone", "15", "吗"]
    assert words("カタかな 한국어 글") == ["カ", "タ", "か", "な", "한국어", "글"]
    assert words(" \n？!") == []


@given(st.lists(st.text(alphabet="aB é３天地?\0 \n", max_size=40), max_size=4))
def test_grams_are_those_of_the_words(texts: list[str]) -> None:
    digests, of = grams(texts, 3)
    expected = []
    for number, text in enumerate(texts):
        own = words(unicodedata.normalize("NFKC", text).casefold())
        expected += [(number, tuple(own[i : i + 3])) for i in range(len(own) - 2)]
    assert of.tolist() == [number for number, _ in expected]
    distinct = {gram: digest for (_, gram), digest in zip(expected, digests.tolist(), strict=True)}
    assert [distinct[gram] for _, gram in expected] == digests.tolist()
    assert len(set(distinct.values())) == len(distinct)


@pytest.mark.parametrize("script", ["words", "characters"])
def test_planted_leaks_are_found(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 500)  # several blocks
    chance = random.Random(1)

    def text(count: int) -> str:
        return sentence(chance, count) if script == "words" else "".join(chance.choices(LETTERS, k=count))

    between = " " if script == "words" else ""
    train, test = [text(60) for _ in range(50)], [text(40) for _ in range(20)]
    whole, most, some = test[3], words(test[7]), words(test[11])
    train[30] = f"{text(20)}. {whole.upper()}！ {text(20)}"
    train[31] = text(9) + between + between.join(most[:36])
    train[32] = between.join(some[:20])
    rows, longest = found(train, test)
    assert rows == [("r30", "t3", 1.0, 40), ("r31", "t7", round(29 / 33, 4), 36)]
    assert 29 / 33 >= SHOWN > 13 / 33
    assert longest == 40


def test_what_many_problems_share_is_no_leak() -> None:
    chance = random.Random(2)
    opening = sentence(chance, 60)
    test = [f"{opening} {sentence(chance, 12)}" for _ in range(COMMON + 1)]
    train = [f"{opening} {sentence(chance, 12)}" for _ in range(5)]
    assert found(train, test) == ([], 0)
    assert len(found(train, test[:-1])[0]) == COMMON
    assert len(found(train, test, ["one problem"] * len(test))[0]) == COMMON + 1


def test_texts_of_one_row_stay_apart() -> None:
    chance = random.Random(5)
    one, other = sentence(chance, 10), sentence(chance, 12)
    leaks = Leaks([Told("t", "t", [one, other])])
    leaks.show([Told("r", "", [f"{other} {one}"])])
    assert leaks.found() == ([("r", "t", 1.0, 12)], 12)


def test_short_and_no_rows() -> None:
    assert found(["a b c"], ["a b c", ""]) == ([], 0)
    assert found([], []) == ([], 0)
    assert found(["一二三四五六七"], ["一二三四五六七八"]) == ([], 0)
    assert found(["一二三四五六七八"], ["一二三四五六七八"]) == ([("r0", "t0", 1.0, WORDS)], WORDS)


@pytest.mark.parametrize(("allowed", "refused"), [(None, False), (0.5, False), (0.49, True), (0.0, True)])
def test_a_threshold_refuses(tmp_path: Path, allowed: float | None, refused: bool) -> None:
    chance = random.Random(3)
    texts = [sentence(chance, 30) for _ in range(5)]
    data = {"train": [texts[0], texts[1] + " and more"], "test": [texts[0], texts[1], *texts[3:]]}
    inputs = {}
    for split, rows in data.items():
        inputs[split] = tmp_path / split
        inputs[split].mkdir()
        lines = [{"id": f"{split}{i}", "prompt": {"q": text}} for i, text in enumerate(rows)]
        (inputs[split] / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "out").mkdir()
    job = Job({"max_contaminated": allowed}, inputs, {}, tmp_path / "out", tmp_path, tmp_path)
    if refused:
        with pytest.raises(
            BuildError, match=r"2 of 4 test rows \(50.0%\) .* 'train0' shows 'test0', more than"
        ):
            overlap.make(job)
        return
    counts = overlap.make(job)
    assert (counts["exact_test_rows"], counts["similar_test_rows"], counts["contaminated_test_rows"]) == (
        1,
        2,
        2,
    )
    written = json.loads((tmp_path / "out/overlap.json").read_text())
    assert written["similar"] == [["train0", "test0", 1.0, 30], ["train1", "test1", 1.0, 30]]


def test_a_hundred_megabytes_take_seconds() -> None:
    chance = random.Random(4)
    some = [sentence(chance, 100) for _ in range(500)]
    leaks = Leaks(Told(f"t{i}", f"t{i}", [text]) for i, text in enumerate(some[:100]))
    rows = [Told(f"r{i}", "", [chance.choice(some)]) for i in range(5000)]
    before = time.process_time()
    leaks.show(rows)
    assert time.process_time() - before < 3  # 3 MB; 0.15 s when nothing else runs
    assert len(leaks.found()[0]) == 100
