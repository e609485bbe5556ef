"""The quick ways to an entry's bytes and through a payload's rules give what the slow ways give, whatever they are given."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from event_journal.chain import ENTRY_DOMAIN, EVENT_TYPES, Event, check_document, entry_bytes
from lockstep_kit.canonical import Document, canonical, statement, time_text
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.journal_payloads import check_payload
from lockstep_testkit.journal_events import document_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEXTS = st.text(max_size=20) | st.text(st.characters(max_codepoint=127), max_size=20)
ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001 - they are drawn with a zone


@given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, MOMENTS, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32))
@example("\u2028", "\x7f", '"\\/', "\ud7ff\ue000", "\U0001f600", NOW, 1, bytes(32))
def test_an_entry_has_the_bytes_of_its_document(
    actor: str, role: str, event_id: str, kind: str, key_id: str, moment: datetime, sequence: int, hashed: bytes
) -> None:
    """An entry's bytes are the RFC 8785 statement of its fields, whatever characters they hold."""
    event = Event(PlanId(f"plan {actor}"), sequence, event_id, kind, actor, role, moment, b"{}")
    document: dict[str, Document] = {
        "version": 1,
        "plan_id": event.plan_id,
        "sequence": sequence,
        "event_id": event_id,
        "type": kind,
        "actor": actor,
        "actor_role": role,
        "event_time": time_text(moment),
        "payload_hash": hashed.hex(),
        "previous_hash": sha256(hashed).hex(),
        "key_id": key_id,
    }
    assert entry_bytes(event, sha256(hashed), key_id, Digest(hashed)) == statement(ENTRY_DOMAIN, document)


@pytest.mark.parametrize("sequence", [2**53, 2**62])
def test_a_number_that_a_reader_may_round_is_signed_by_nobody(sequence: int) -> None:
    """A place beyond 53 bits has no canonical bytes."""
    event = Event(PlanId("plan"), sequence, "id", "leg.prepared", "actor", "role", NOW, b"{}")
    with pytest.raises(rfc8785.CanonicalizationError):
        entry_bytes(event, sha256(b""), "key", sha256(b""))


def slowly(kind: str, payload: bytes) -> str:
    """What is wrong with a payload, by one rule after the other."""
    try:
        document = orjson.loads(payload)
        same = isinstance(document, dict) and canonical(document) == payload
    except (ValueError, TypeError, RecursionError):
        same = False
    if not same:
        return "payload must be the RFC 8785 bytes of an object without floats and nulls"
    try:
        check_payload(kind, document)
    except FieldInvalid as finding:
        return str(finding)
    return ""


ODD = st.none() | st.floats() | st.integers(-(2**70), 2**70) | st.booleans() | TEXTS | st.lists(st.none() | TEXTS, max_size=3)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[str, bytes]:
    """A payload of a type, most often spoiled in one place, and written in one of several ways."""
    kind = draw(st.sampled_from(sorted(EVENT_TYPES)))
    document: Any = copy.deepcopy(document_of(kind))
    place = document
    while draw(st.booleans()):
        inner = [each for each in place.values() if isinstance(each, dict)]
        if not inner:
            break
        place = draw(st.sampled_from(inner))
    match draw(st.sampled_from(("whole", "changed", "added", "taken"))):
        case "changed":
            place[draw(st.sampled_from(sorted(place)))] = draw(ODD)
        case "added":
            place[draw(TEXTS)] = draw(ODD)
        case "taken":
            del place[draw(st.sampled_from(sorted(place)))]
    option = draw(st.sampled_from((orjson.OPT_SORT_KEYS, 0, orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)))
    try:
        written = orjson.dumps(document, option=option)
    except TypeError:
        # An integer of more than 64 bits.
        written = repr(document).encode(errors="replace")
    if draw(st.booleans()):
        written = written.replace(b'"version"', b'"\\u0076ersion"')
    return kind, written


@given(payloads())
@example(("leg.prepared", b""))
@example(("leg.prepared", b"[" * 5_000))
@example(("plan.ready", b'{"version":1,"version":1}'))
def test_a_payload_is_judged_as_by_each_rule_alone(drawn: tuple[str, bytes]) -> None:
    """What is found of a payload, and which rule is named, is the same on the quick way and on the slow one."""
    kind, payload = drawn
    found = check_document(Event(PlanId("plan"), 2, "id", kind, "actor", "role", NOW, payload))
    assert ("" if found is None else str(found)) == slowly(kind, payload)


@given(st.sampled_from(sorted(EVENT_TYPES)))
def test_what_is_written_is_sound(kind: str) -> None:
    """The quick way lets through what every type's payload is."""
    assert check_document(Event(PlanId("plan"), 2, "id", kind, "actor", "role", NOW, canonical(document_of(kind)))) is None
