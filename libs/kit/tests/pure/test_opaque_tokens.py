"""Tokens of any text: a place of the kind, or refused by name."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.opaque_tokens import number_in, place_in, token_of

KIND = "legs/1/"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@given(token=some.text(max_size=60) | some.text(max_size=30).map(lambda text: encoded(KIND + text)))
@example(token=encoded(KIND + "9" * 19))
@example(token=encoded(KIND + "\u0661"))
@example(token=encoded(KIND + "\u00b2"))
@example(token=encoded(KIND))
@example(token=encoded("legs/2/1"))
@example(token="bGVncy8xLw")
@example(token="\ud7ff")
def test_a_token_names_a_place_or_is_refused(token: str) -> None:
    """A number fits the database's; the refusal names the field."""
    try:
        assert 0 <= number_in(place_in(token, KIND, "resume_token"), "resume_token") < 10**18
    except FieldInvalid as finding:
        refused = finding.field
    else:
        refused = "resume_token"
        assert token == encoded(KIND + base64.urlsafe_b64decode(token).decode().removeprefix(KIND))
    assert refused == "resume_token"


@given(number=some.integers(0, 10**18 - 1))
def test_a_token_is_read_as_it_was_given(number: int) -> None:
    """Whatever place."""
    assert number_in(place_in(token_of(KIND, str(number)), KIND)) == number


@given(place=some.text(some.characters(max_codepoint=127), max_size=40))
def test_a_token_of_another_kind_is_refused(place: str) -> None:
    """Also where the place is one of both."""
    with pytest.raises(FieldInvalid, match="page_token"):
        place_in(token_of(KIND, place), "plans:")


@pytest.mark.parametrize("place", ["", "-1", "+1", " 1", "1_0", "1e3", "9" * 19])
def test_what_is_no_number_is_refused(place: str) -> None:
    """Digits alone, and as many as fit."""
    with pytest.raises(FieldInvalid, match="page_token"):
        number_in(place)
