"""Reading answers out of texts, and voting."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
