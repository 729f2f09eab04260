"""Every metric against its reference implementation, on a thousand random and awkward pairs."""

from __future__ import annotations

import logging
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from workflow.errors import BuildError
from workflow.metrics import COMPARED
from workflow.metrics.chinese import segmenter
from workflow.metrics.matching import last_number
from workflow.metrics.metric import Chosen
from workflow.results import AskedRow

ENGLISH = (
    "The a cat cats on mat. Dogs, ran! an it's state-of-the-art U.S. 1,000 3.5 -7 ??? (no) é Ü 😀".split()
)
CHINESE = [*"他今天去北京了，她不来。天气很好！", "北京", "今天", "长裙", "GPT-4", "3个", "？"]
AWKWARD = [
    "",
    " ",
    "\n",
    ".",
    "。",
    "a",
    "好",
    "the",
    "1",
    "😀",
    "\u200b",
    "ａｂｃ",
    "no\nlines\n",
    "A" * 300,
    "“”",
    "-",
    "x = -5",
]


def pairs(words: list[str], glue: str, seed: int = 0) -> list[tuple[str, str]]:
    """A thousand random pairs, some of them equal, and every pair of awkward texts."""
    chance = random.Random(seed)
    found = []
    for number in range(1000):
        one = glue.join(chance.choices(words, k=chance.randrange(1, 20)))
        parts = [w if chance.random() < 0.7 else chance.choice(words) for w in one.split(glue or None)]
        other = glue.join(parts) if number % 9 else one
        found.append((one, other if number % 7 else chance.choice(AWKWARD)))
    return found + [(one, other) for one in AWKWARD for other in AWKWARD]


SPACED, UNSPACED = pairs(ENGLISH, " "), pairs(CHINESE, "")
ALL = SPACED + UNSPACED


def row(*gold: str) -> AskedRow:
    return AskedRow(id="r", prompt={}, gold=list(gold))


def score(name: str, gold: list[str], text: str, references: str = "best") -> float:
    return COMPARED[name](Chosen(references=references)).score(row(*gold), text)


def agree(
    name: str, reference: Callable[[str, str], float], among: list[tuple[str, str]], **chosen: Any
) -> None:
    metric = COMPARED[name](Chosen(**chosen))
    assert len(among) >= 1000
    found = [metric.score(row(gold), text) for gold, text in among]
    expected = [reference(gold, text) for gold, text in among]
    wrong = [(p, f, e) for p, f, e in zip(among, found, expected, strict=True) if abs(f - e) > 1e-9]
    assert not wrong, wrong[:3]
    assert all(0 <= value <= 1 for value in found)
    assert len(set(np.round(found, 6))) > 1


def squad_normal(text: str) -> str:
    """normalize_answer of SQuAD's evaluate-v2.0.py."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def squad_f1(gold: str, text: str) -> float:
    """compute_f1 of the same."""
    wanted, given = squad_normal(gold).split(), squad_normal(text).split()
    shared = sum((Counter(wanted) & Counter(given)).values())
    if not wanted or not given:
        return float(wanted == given)
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def plain(text: str) -> bool:
    return not re.search(r"[\u3000-\u9fff“”]", text)


def test_squad() -> None:
    among = [pair for pair in SPACED if all(map(plain, pair))]
    agree("f1", squad_f1, among)
    agree("exact_match", lambda gold, text: float(squad_normal(gold) == squad_normal(text)), among)


def mlqa_words(text: str) -> list[str]:
    """Characters apart and no punctuation, as MLQA's script has it for Chinese."""
    text = re.sub(r"[，。！？“”]", "", "".join(c for c in text.lower() if c not in set(string.punctuation)))
    return re.sub(r"([\u4e00-\u9fff])", r" \1 ", text).split()


def test_f1_of_chinese_is_by_character() -> None:
    def reference(gold: str, text: str) -> float:
        wanted, given = mlqa_words(gold), mlqa_words(text)
        if not wanted or not given:
            return float(wanted == given)
        return 2 * sum((Counter(wanted) & Counter(given)).values()) / (len(wanted) + len(given))

    agree("f1", reference, [p for p in UNSPACED if not re.search(r"\b(a|the)\b", " ".join(p).lower())])


def test_numeric_match() -> None:
    chance = random.Random(2)
    shapes = [
        "{:d}",
        "{:,d}",
        "${:,d}.00",
        "={:d}.",
        "is {:d}%",
        "{:d} apples",
        "x{:d}",
        "+{:d}",
        "{:d}.0 or so",
    ]

    def text(number: int) -> str:
        before = chance.choice(["", "17 and ", "3-4=", "so "])
        return before + chance.choice(shapes).format(number)

    def said(number: int) -> tuple[str, int]:
        return text(number), number

    numbers = [(said(chance.randrange(10**6)), said(chance.randrange(10**6))) for _ in range(500)]
    numbers += [(said(n), said(n)) for n in range(0, 10**6, 1999)]
    metric = COMPARED["numeric_match"](Chosen())
    assert len(numbers) > 1000
    for (one, wanted), (other, given) in numbers:
        assert metric.score(row(one), other) == (wanted == given), (one, other)
    known = {"": None, "none": None, "-5": "-5", "a -5": "-5", "3-5": "5", "−2.50": "-2.5", "１２３": "123",
             "1,2": "2", "1,234.5": "1234.5", "1.2.3": "3", "1,2345": "2345", "v1.5": "1.5"}  # fmt: skip
    assert {text: last_number(text) for text in known} == {t: n and Decimal(n) for t, n in known.items()}
    assert metric.score(row("none"), "none") == 0


@pytest.mark.parametrize(
    ("tokenize", "among"), [("13a", SPACED), ("intl", SPACED), ("zh", ALL), ("char", ALL)]
)
def test_bleu(tokenize: str, among: list[tuple[str, str]]) -> None:
    if tokenize in ("13a", "intl"):
        among = [(gold, text) for gold, text in among if plain(gold)]
    single = BLEU(tokenize=tokenize, effective_order=True)
    agree(
        "bleu",
        lambda gold, text: min(1, single.sentence_score(text, [gold]).score / 100),
        among,
        tokenize=tokenize,
    )
    metric = COMPARED["bleu"](Chosen(tokenize=tokenize))
    sums = np.sum([metric.measure(row(gold), text)[1] for gold, text in among], axis=0)
    whole = BLEU(tokenize=tokenize)
    found = whole.corpus_score([text for _, text in among], [[gold for gold, _ in among]])
    assert metric.corpus(sums.tolist()) == pytest.approx(found.score / 100, abs=1e-12)
    assert metric.signature == str(whole.get_signature()) and f"tok:{tokenize}" in metric.signature


def test_bleu_refuses_chinese_as_one_word() -> None:
    with pytest.raises(BuildError, match=r"row 'r': scoring\.tokenize divides texts at spaces.*say zh"):
        COMPARED["bleu"](Chosen()).score(row("a", "他今天去北京"), "x")


def test_chrf() -> None:
    chrf = CHRF()
    agree("chrf", lambda gold, text: min(1, chrf.sentence_score(text, [gold]).score / 100), ALL)
    metric = COMPARED["chrf"](Chosen())
    sums = np.sum([metric.measure(row(gold), text)[1] for gold, text in ALL], axis=0)
    found = chrf.corpus_score([text for _, text in ALL], [[gold for gold, _ in ALL]])
    assert metric.corpus(sums.tolist()) == pytest.approx(found.score / 100, abs=1e-12)


def test_several_references() -> None:
    texts = [gold for gold, _ in SPACED if plain(gold)]
    for number in range(200):
        gold, text = texts[number : number + 3], texts[number + 3]
        for name, reference in (("bleu", BLEU(effective_order=True)), ("chrf", CHRF())):
            best, mean = (
                COMPARED[name](Chosen(references=how)).score(row(*gold), text) for how in ("best", "mean")
            )
            assert best == pytest.approx(min(1, reference.sentence_score(text, gold).score / 100))
            each = [min(1, reference.sentence_score(text, [one]).score / 100) for one in gold]
            assert mean == pytest.approx(sum(each) / 3)
        for name in ("f1", "rougeL", "bleu4_chars", "exact_match"):
            each = [COMPARED[name](Chosen()).score(row(one), text) for one in gold]
            assert COMPARED[name](Chosen()).score(row(*gold), text) == max(each)
            assert COMPARED[name](Chosen(references="mean")).score(row(*gold), text) == pytest.approx(
                sum(each) / 3
            )
    assert "mean of several" in COMPARED["f1"](Chosen(references="mean")).signature


def test_rouge() -> None:
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([name], use_stemmer=True)
        words = [word for word in ENGLISH if word.isascii()]
        among = [pair for pair in pairs(words, " ") if " ".join(pair).isascii()]
        agree(name, lambda gold, text, s=scorer, n=name: s.score(gold, text)[n].fmeasure, among)


def tutorial(gold: str, text: str) -> dict[str, float]:
    """compute_metrics of ChatGLM-6B's ptuning/main.py, for one pair; 0 where it fails on an empty text."""
    import jieba
    from rouge_chinese import Rouge

    hypothesis, reference = list(jieba.cut(text)), list(jieba.cut(gold))
    found = dict.fromkeys(("rouge-1", "rouge-2", "rouge-l"), 0.0)
    try:
        result = Rouge().get_scores(" ".join(hypothesis), " ".join(reference))[0]
        found = {name: round(value["f"] * 100, 4) for name, value in result.items()}
    except (ValueError, ZeroDivisionError):
        pass
    smooth = SmoothingFunction().method3
    bleu = sentence_bleu([list(gold)], list(text), smoothing_function=smooth) if gold and text else 0
    return {**found, "bleu-4": round(bleu * 100, 4)}


@pytest.fixture(scope="module")
def published() -> dict[tuple[str, str], dict[str, float]]:
    segmenter()  # imports what warns of itself
    logging.getLogger("jieba").setLevel(logging.ERROR)
    return {pair: tutorial(*pair) for pair in ALL}


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("bleu4_chars", "bleu-4"),
        ("rouge1_jieba", "rouge-1"),
        ("rouge2_jieba", "rouge-2"),
        ("rougeL_jieba", "rouge-l"),
    ],
)
def test_tutorial_4(name: str, theirs: str, published: dict[tuple[str, str], dict[str, float]]) -> None:
    agree(name, lambda gold, text: min(1, published[gold, text][theirs] / 100), ALL)
