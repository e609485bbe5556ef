"""Ids that begin with the time."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.ids import TIMELY_BYTES, plan_id, timely

MILLISECONDS = st.integers(0, 2**48 - 1)
DRAWN = st.binary(min_size=TIMELY_BYTES, max_size=TIMELY_BYTES)


def test_the_vector_of_the_standard_is_met() -> None:
    """RFC 9562, appendix A.6."""
    assert timely(0x017F22E279B0, bytes.fromhex("0cc3 98c4dc0c0c07398f")) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(MILLISECONDS, DRAWN)
def test_they_are_plan_ids_of_version_seven(milliseconds: int, drawn: bytes) -> None:
    """Their time is the one they were drawn at, and all other bits but version and variant are drawn ones."""
    found = uuid.UUID(plan_id(timely(milliseconds, drawn)))
    assert (found.version, found.variant, found.int >> 80) == (7, uuid.RFC_4122, milliseconds)
    kept = (0x0FFF << 64) | (1 << 62) - 1
    assert found.int & kept == int.from_bytes(drawn, "big") & kept


@given(MILLISECONDS, MILLISECONDS, DRAWN, DRAWN)
def test_what_is_drawn_later_sorts_later(one: int, other: int, drawn: bytes, beside: bytes) -> None:
    """As text, as the databases' indexes sort them."""
    if one < other:
        assert timely(one, drawn) < timely(other, beside)


def test_what_does_not_fit_is_refused() -> None:
    """A time beyond 48 bits, or of before 1970, and more or fewer octets than there is room for."""
    for milliseconds in (-1, 2**48):
        with pytest.raises(OverflowError):
            timely(milliseconds, bytes(TIMELY_BYTES))
    for count in (TIMELY_BYTES - 1, TIMELY_BYTES + 1):
        with pytest.raises(ValueError, match="octets were drawn"):
            timely(0, bytes(count))
