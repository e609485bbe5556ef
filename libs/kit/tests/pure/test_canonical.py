"""Canonical bytes: one document, one text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.canonical import Document, canonical, digest_of, statement, time_from_text, time_text
from lockstep_kit.certificate import Decision

SCALARS = st.text() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)
ASCII = st.text(st.characters(max_codepoint=127))
ASCII_DOCUMENTS = st.recursive(
    ASCII | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ASCII, inner, max_size=4),
)


def test_rfc_8785_key_order() -> None:
    """Keys are sorted by UTF-16 code units (RFC 8785, section 3.2.3), not by code points."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    document = canonical(dict.fromkeys(keys, 1)).decode()
    assert list(json.loads(document)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(DOCUMENTS)
def test_reads_back(document: object) -> None:
    """Canonical bytes are JSON of the same document, and canonical bytes of what was read are the same bytes."""
    octets = canonical(document)  # type: ignore[arg-type]  # drawn in the document's form
    assert json.loads(octets) == document
    assert canonical(json.loads(octets)) == octets


@given(DOCUMENTS | ASCII_DOCUMENTS)
def test_fast_writer_is_the_slow_one(document: object) -> None:
    """Whichever way the bytes are written, they are those of the reference implementation."""
    assert canonical(document) == rfc8785.dumps(document)  # type: ignore[arg-type]  # drawn in the document's form


def test_every_ascii_character() -> None:
    """Each character below 128, alone as key and value, is spelled as the reference implementation spells it."""
    for number in range(128):
        document = {f"a{chr(number)}b": chr(number)}
        assert canonical(document) == rfc8785.dumps(document)


def test_subclasses() -> None:
    """Enumerations and other strings in disguise are written as the strings that they are."""
    document: Document = {"kind": Decision.COMMIT, "count": True, "list": (1, [2])}
    assert canonical(document) == b'{"count":true,"kind":"COMMIT","list":[1,[2]]}'


@pytest.mark.parametrize("document", [1.0, None, {"a": None}, {"a": [1.5]}, b"octets", {"a": b""}, object()])
def test_what_has_two_forms_is_refused(document: object) -> None:
    """Floats, null and octets have no place in a canonical document."""
    with pytest.raises(TypeError):
        canonical(document)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("number", [2**53, -(2**53), 10**30])
def test_integers_beyond_53_bits(number: int) -> None:
    """An integer that a JSON reader may round is refused."""
    with pytest.raises(rfc8785.CanonicalizationError):
        canonical({"n": number})


def test_domains_part_statements() -> None:
    """The same document signed for two purposes has different bytes, and neither begins the other."""
    one, other = statement("lockstep/vote/v1", {"a": 1}), statement("lockstep/vote/v10", {"a": 1})
    assert one == b'lockstep/vote/v1\n{"a":1}'
    assert not other.startswith(one)
    assert digest_of({"a": 1}).hex() == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)), st.integers(-14, 14))  # noqa: DTZ001 - made aware below
def test_a_moment_has_one_text(moment: datetime, hours: int) -> None:
    """The same moment in any zone has the same text, with six decimals, and reads back."""
    utc = moment.replace(tzinfo=UTC)
    text = time_text(utc)
    assert time_text(utc.astimezone(timezone(timedelta(hours=hours)))) == text
    assert time_from_text(text) == utc
    assert len(text) == len("2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.5Z",
        "2026-01-01T00:00:00.000000",
        "2026-01-01T00:00:00.000000+00:00",
        "2026-01-01T01:00:00.000000+01:00",
        "2026-01-01 00:00:00.000000Z",
        "2026-02-30T00:00:00.000000Z",
        "\u0662026-01-01T00:00:00.000000Z",
    ],
)
def test_a_moment_has_no_other_text(text: str) -> None:
    """Whatever else ISO 8601 lets stand for a moment is refused."""
    with pytest.raises(ValueError, match=r"\w"):
        time_from_text(text)


def test_time_without_offset() -> None:
    """A time without an offset is no moment."""
    with pytest.raises(TypeError):
        time_text(datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
