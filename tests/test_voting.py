"""Reading answers out of texts, and voting."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.errors import BuildError
from workflow.results import AskedRow
from workflow.voting import Reader, Ties, Vote
from workflow.voting import vote as voted


def vote(answers: Sequence[str | None], ties: str) -> Vote:
    return voted(answers, Ties(ties))


PATTERN = r"答案是[:：]\s*\**\(?([A-G])"


def read(text: str, letters: str | None = "ABCD", match: str = "last", pattern: str = PATTERN) -> str | None:
    return Reader.of({"pattern": pattern, "match": match}).read(text, letters)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案是：B", "B"),
        ("答案是:B", "B"),
        ("答案是：**C**", "C"),
        ("答案是：(D)", "D"),
        ("答案是：**(A) 甲**", "A"),
        ("答案是：\n\nB", "B"),
        ("答案是：\u3000B", None),  # RE2's \s is ASCII; the recipe's pattern decides
        ("答案是：A。不对,\n答案是：C", "C"),
        ("答案是：B\n因此答案是：\n", "B"),  # the second is no match of the pattern
        ("答案是：A,所以答案是：E", None),  # the last match counts, and E is not an option
        ("答案是：G", None),
        ("答案是:b", None),
        ("答案是：Ｂ", None),
        ("答案是：", None),
        ("", None),
        ("😀\x00答案是：B\x00", "B"),
        ("选 B", None),
    ],
)
def test_answer_of_awkward_texts(text: str, answer: str | None) -> None:
    assert read(text) == answer


def test_first_or_last_match() -> None:
    text = "答案是：A。更正:答案是：C"
    assert read(text, match="first") == "A"
    assert read(text, match="last") == "C"


def test_only_the_chosen_match_counts() -> None:
    assert read("答案是：E……答案是：A", match="first") is None
    assert read("答案是：E……答案是：A", letters="ABCDE", match="first") == "E"


def test_upstreams_pattern_abstains_where_it_took_a_newline_for_an_answer() -> None:
    assert read("答案是：\nB", match="first", pattern=r"(?s)答案是：(.)") is None


def test_several_letters_are_no_option() -> None:
    assert read("答案是：AB", pattern="答案是：([A-D]+)") is None


def test_without_options_any_text_is_an_answer_but_an_empty_one() -> None:
    assert read("#### 72 \n", letters=None, pattern=r"####\s*([^\n]*)") == "72"
    assert read("####  \n", letters=None, pattern=r"####[ ]*([^\n]*)") is None
    assert read("x", letters=None, pattern=r"x(y)?") is None
    assert read("答案是：甲", letters=None, pattern="答案是：(.)") == "甲"


def test_pattern_that_cuts_a_character_does_not_crash() -> None:
    assert read("甲", letters="ABCD", pattern=r"(\C)") is None


def test_no_options_left_means_no_valid_answer() -> None:
    assert read("答案是：A", letters="") is None


@given(st.text(max_size=60), st.sampled_from(["first", "last"]))
def test_answer_is_a_valid_letter_or_nothing(text: str, match: str) -> None:
    assert read(f"{text}答案是：{text}", match=match) in {*"ABCD", None}


@pytest.mark.parametrize(
    ("answers", "ties", "answer", "tie"),
    [
        ("ABB", "first", "B", False),
        ("AB-", "first", "A", True),
        ("-BA", "first", "B", True),
        ("AB-", "abstain", None, True),
        ("A--", "first", "A", False),  # two abstentions are no majority
        ("---", "first", None, False),
        ("---", "abstain", None, False),
        ("CABBA", "first", "A", True),  # C was drawn before, but has fewer votes
        ("B", "abstain", "B", False),
    ],
)
def test_majority_and_ties(answers: str, ties: str, answer: str | None, tie: bool) -> None:
    result = vote([None if letter == "-" else letter for letter in answers], ties)
    assert (result.answer, result.tie) == (answer, tie)
    assert result.abstentions == answers.count("-")


def test_agreement_is_over_all_draws() -> None:
    assert vote(["B", None, "B", "A"], "first").agreement == 0.5
    assert vote(["A", "B"], "abstain").agreement == 0


DRAWS = st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=9)


@given(DRAWS, st.sampled_from(["first", "abstain"]), st.randoms(use_true_random=False))
def test_order_of_draws_decides_nothing_but_ties(
    answers: list[str | None], ties: str, chance: random.Random
) -> None:
    shuffled = chance.sample(answers, len(answers))
    one, other = vote(answers, ties), vote(shuffled, ties)
    assert list(one.votes.items()) == list(other.votes.items())
    assert (one.abstentions, one.tie) == (other.abstentions, other.tie)
    if ties == "abstain" or not one.tie:
        assert one == other


@given(DRAWS)
def test_first_takes_the_earliest_of_the_most_voted(answers: list[str | None]) -> None:
    result = vote(answers, "first")
    given_answers = [answer for answer in answers if answer]
    most = max((given_answers.count(answer) for answer in given_answers), default=0)
    expected = next((answer for answer in given_answers if given_answers.count(answer) == most), None)
    assert result.answer == expected == vote(answers, "first").answer


@given(DRAWS, st.sampled_from(["first", "abstain"]))
def test_draws_are_votes_or_abstentions(answers: list[str | None], ties: str) -> None:
    result = vote(answers, ties)
    assert sum(result.votes.values()) + result.abstentions == len(answers)
    assert None not in result.votes
    assert result.answer is None or result.votes[result.answer] == max(result.votes.values())
    assert (result.agreement == 0) == (result.answer is None)


def reader(**answer: Any) -> Reader:
    return Reader.of({"pattern": r"(?s)(.*)", "match": "first", **answer})


def row(*gold: str, options: int = 0) -> AskedRow:
    return AskedRow(id="r", prompt={"options": ["x"] * options} if options else {}, gold=list(gold))


@pytest.mark.parametrize(
    ("text", "answer"),
    [("great", "Positive"), (" Wonderful! ", "Positive"), ("AWFUL", "Negative"), ("fine", None), ("", None)],
)
def test_label_words(text: str, answer: str | None) -> None:
    words = {"great": "Positive", "wonderful": "Positive", "awful": "Negative"}
    read = reader(map=words, normalise="text")
    assert read.read(text, None) == answer
    assert read.accepted(row("positive", "Unknown")) == {"Positive", "unknown"}


def test_label_words_as_they_are() -> None:
    read = reader(map={"great": "Positive"})
    assert (read.read("great", None), read.read("Great", None)) == ("Positive", None)
    assert read.accepted(row("Positive")) == {"Positive"}


def test_label_words_for_letters() -> None:
    read = reader(map={"甲": "a", "乙": "B", "丙": "C"}, normalise="text")
    assert [read.read(text, "AB") for text in "甲乙丙A"] == ["A", "B", None, None]
    assert read.accepted(row("b", options=2)) == {"B"}


def test_numbers_that_are_equal_are_one_vote() -> None:
    read = reader(normalise="number")
    answers = [read.read(text, None) for text in ("1,000.0", "$1000", "999", "many")]
    assert answers == ["1000", "1000", "999", None]
    assert read.accepted(row("1,000")) == {"1000"}
    with pytest.raises(BuildError, match="row 'r': the gold answer 'many' is no number"):
        read.accepted(row("many"))


def test_letters_in_normal_form() -> None:
    read = reader(normalise="text")
    assert [read.read(text, "ABCD") for text in ("Ｂ.", "c", "e", "ab")] == ["B", "C", None, None]
    assert read.accepted(row("B", options=4)) == {"B"}


def naive_weighted(answers: Sequence[str | None], tenths: Sequence[int]) -> tuple[set[str], Fraction]:
    """The winners and their sum, with fractions."""
    sums: dict[str, Fraction] = {}
    for answer, weight in zip(answers, tenths, strict=True):
        if answer is not None:
            sums[answer] = sums.get(answer, Fraction(0)) + Fraction(weight, 10)
    most = max(sums.values(), default=Fraction(0))
    return {answer for answer, total in sums.items() if total == most}, most


@settings(deadline=None)
@given(DRAWS, st.data(), st.sampled_from(["first", "seeded", "abstain"]))
def test_weighted_votes_are_counted_as_fractions_are(
    answers: list[str | None], data: st.DataObject, ties: str
) -> None:
    tenths = data.draw(st.lists(st.integers(1, 9), min_size=len(answers), max_size=len(answers)))
    result = voted(answers, Ties(ties, 3), "row", [weight / 10 for weight in tenths])
    winners, most = naive_weighted(answers, tenths)
    assert result.tie == (len(winners) > 1)
    if not winners or (result.tie and ties == "abstain"):
        assert result.answer is None
    else:
        assert result.answer in winners
        assert result.agreement == pytest.approx(float(most * 10 / sum(tenths)))
    if ties == "first" and winners:
        assert result.answer == next(answer for answer in answers if answer in winners)
    assert result.votes == vote(answers, "first").votes
    assert result.weights is not None and result.weights.keys() == result.votes.keys()
    assert all(result.weights[w] == pytest.approx(float(most)) for w in winners)


def test_three_tenths_are_a_tie() -> None:
    assert 0.1 + 0.2 != 0.3
    result = voted(["A", "A", "B"], Ties("first"), "", [0.1, 0.2, 0.3])
    assert (result.tie, result.weights) == (True, {"A": 0.3, "B": 0.3})


def test_weight_outvotes_number() -> None:
    result = voted(["A", "A", "B", None], Ties("first"), "", [1, 1, 3, 5])
    assert (result.answer, result.votes, result.agreement) == ("B", {"A": 2, "B": 1}, 0.3)


def test_seeded_ties_go_by_the_row_and_the_seed_alone() -> None:
    rows = [f"row {i}" for i in range(400)]
    chosen = [voted(["A", "B", "C", None], Ties("seeded", 1), name).answer for name in rows]
    assert chosen == [voted(["C", None, "B", "A"], Ties("seeded", 1), name).answer for name in rows]
    assert chosen != [voted(["A", "B", "C"], Ties("seeded", 2), name).answer for name in rows]
    assert min(chosen.count(answer) for answer in "ABC") > 90  # 133 expected, standard deviation 9
    assert voted(["B", "A", "B"], Ties("seeded", 1), "r").answer == "B"
