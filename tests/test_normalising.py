"""Normal forms of answers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.normalising import normalised


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1,000.0", "1000"),
        ("1000", "1000"),
        (" $1,000.50 ", "1000.5"),
        ("-$3", "-3"),
        ("１２", "12"),
        ("−7", "-7"),
        ("+7.", "7"),
        ("007", "7"),
        ("0.0", "0"),
        ("-0.00", "0"),
        ("0.10", "0.1"),
        ("1 000", "1000"),
        ("12,34", ""),
        ("1.2.3", ""),
        ("5 apples", ""),
        ("1/2", ""),
        ("1e3", ""),
        (".", ""),
        ("", ""),
        ("$", ""),
        ("NaN", ""),
        ("٣", ""),
    ],
)
def test_numbers(text: str, form: str) -> None:
    assert normalised(text, "number") == form


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=4))
def test_a_number_in_any_writing_is_itself(value: Decimal) -> None:
    plain = normalised(f"{value:f}", "number")
    assert Decimal(plain) == value
    assert normalised(f"{value:,f}0", "number") == normalised(f" {value:f} ", "number") == plain


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Paris.", "paris"),
        ("  **PARIS**\n", "paris"),
        ("“北京”。", "北京"),
        ("New\t York", "new york"),
        ("Ｂ", "b"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("1.5", "1.5"),
        ("-5", "-5"),
        ("50%", "50%"),
        ("C#", "c#"),
        ("(a) b", "a) b"),
        ("...", ""),
        ("", ""),
    ],
)
def test_texts(text: str, form: str) -> None:
    assert normalised(text, "text") == form


@settings(deadline=None)
@given(st.text(max_size=30), st.sampled_from(["none", "text", "number"]))
def test_a_normal_form_is_its_own(text: str, how: str) -> None:
    form = normalised(text, how)
    assert normalised(form, how) == form
