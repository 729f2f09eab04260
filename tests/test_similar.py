"""BM25 against its formula, word by word."""

from __future__ import annotations

import math
import random

import pytest

from workflow.similar import K1, B, Bm25
from workflow.words import words


def naive(texts: list[str], query: str) -> list[float]:
    split = [words(text.casefold()) for text in texts]
    average = sum(map(len, split)) / len(split)
    found = []
    for document in split:
        score = 0.0
        for word in set(words(query.casefold())):
            holding = sum(word in other for other in split)
            often = document.count(word)
            rare = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            score += rare * often * (K1 + 1) / (often + K1 * (1 - B + B * len(document) / average))
        found.append(score)
    return found


def test_scores_are_those_of_the_formula() -> None:
    chance = random.Random(0)
    vocabulary = [*"甲乙丙丁", "the", "cat", "Dog", "sat", "on", "mat", "7"]
    for _ in range(20):
        texts = [" ".join(chance.choices(vocabulary, k=chance.randint(0, 12))) for _ in range(15)]
        texts[0] = "cat"
        query = " ".join(chance.choices([*vocabulary, "unknown"], k=6))
        assert Bm25(texts).scores(query).tolist() == pytest.approx(naive(texts, query), abs=1e-8)


def test_texts_without_words() -> None:
    assert Bm25(["", "..."]).scores("a").tolist() == [0, 0]
    assert Bm25([]).scores("a").tolist() == []
    assert Bm25(["a", "b"]).scores("").tolist() == [0, 0]
