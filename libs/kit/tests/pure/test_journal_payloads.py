"""What the payload of each journal event holds: what is taken, and what each thing that is not is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from lockstep_kit.document_forms import Shape, Tagged
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.journal_payloads import PAYLOADS, check_payload
from lockstep_kit.resolutions import Resolution, Verb
from lockstep_kit.statements import BankEvidence, ChainEvidence, Evidence, InstrumentEvidence, JournalEvidence
from lockstep_testkit.journal_events import payload_of

TYPES = tuple(PAYLOADS)


def document(event_type: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(payload_of(event_type))
    return found


def finding(event_type: str, changed: object) -> FieldInvalid:
    with pytest.raises(FieldInvalid) as caught:
        check_payload(event_type, changed)
    return caught.value


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield (*path, name)
            yield from places(each, (*path, name))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def test_there_are_fifteen_types() -> None:
    """The journal has these event types and no others."""
    assert len(TYPES) == 15


@pytest.mark.parametrize("event_type", TYPES)
def test_every_field_is_held_to_a_rule(event_type: str) -> None:
    """A payload is taken as it is; each of its fields of a wrong form, each that is missing and each too many is refused by its path."""
    check_payload(event_type, document(event_type))
    for path in places(document(event_type)):
        name = "payload." + ".".join(map(str, path))
        wrongs: tuple[Any, ...] = (None, 1.5, [], -1, "\0" * 70_000)
        for wrong in wrongs:
            changed = document(event_type)
            at(changed, path[:-1])[path[-1]] = wrong
            if not (path[-1] == "gates" and wrong == []):
                assert finding(event_type, changed).field.startswith(name), (path, wrong)
        inner = at(document(event_type), path)
        if isinstance(inner, dict):
            changed = document(event_type)
            at(changed, path)["surplus"] = "x"
            assert finding(event_type, changed).field == f"{name}.surplus"


@pytest.mark.parametrize("event_type", TYPES)
def test_what_is_required_is_missed(event_type: str) -> None:
    """A payload without one of its required fields is refused, and the field is named."""
    shape = PAYLOADS[event_type]
    for name in shape.required:
        changed = document(event_type)
        del changed[name]
        assert (finding(event_type, changed).field, finding(event_type, changed).rule) == (f"payload.{name}", "must be present")


@pytest.mark.parametrize("version", [0, 2, "1", True])
def test_another_version_is_refused(version: object) -> None:
    """A payload is read by the rules of the version that it names, or not at all."""
    assert finding("plan.ready", document("plan.ready") | {"version": version}).rule == "must be 1"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("leg", "vote", "signature"), "AB" * 64),
        (("leg", "vote", "signature"), " " + "ab" * 64),
        (("leg", "vote", "signature"), "ab" * 63),
        (("leg", "vote", "vote"), "MAYBE"),
        (("leg", "leg_id"), "Cash"),
        (("leg", "kind"), "barter"),
        (("plan_digest",), ""),
    ],
)
def test_wrong_values_are_named(path: tuple[str, ...], value: str) -> None:
    """A value outside its form is refused by its path."""
    changed = document("leg.prepared")
    at(changed, path[:-1])[path[-1]] = value
    assert finding("leg.prepared", changed).field == "payload." + ".".join(path)


def test_lists_name_their_members() -> None:
    """What is wrong inside a list is named by its place."""
    changed = document("plan.released")
    changed["decision"]["gates"] = [copy.deepcopy(changed["gate"]), {**changed["gate"], "nonce": "00"}]
    assert finding("plan.released", changed).field == "payload.decision.gates[1].nonce"
    changed["decision"]["gates"] = ["x"]
    assert finding("plan.released", changed).field == "payload.decision.gates[0]"


EVIDENCE: tuple[Evidence, ...] = (
    ChainEvidence("eip155:138", "0x00", bytes(32), "COMMITTED", b"", 3, bytes(32)),
    BankEvidence("COBADEFFXXX", "uetr", "ACSC"),
    InstrumentEvidence("COBADEFFXXX", "ref", "1", "ISSU", "m", bytes(32)),
    JournalEvidence(3, bytes(32), sealed=True),
)


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_resolutions_are_taken_with_any_evidence(evidence: Evidence) -> None:
    """What two operators can sign, the journal can hold, whatever the evidence."""
    resolution = Resolution(bytes(32), "e-1", Verb.RESOLVE, "cash", executed=True, evidence=evidence, detail="seen")  # type: ignore[arg-type]
    signature = {"actor": "erin", "nonce": "00" * 16, "expires_at": "2026-11-21T12:00:00.000000Z"}
    signature |= {"key_id": "00" * 8, "signature": "00" * 64}
    mandate = {"resolution": resolution.document(), "digest": resolution.digest.hex(), "signatures": [signature] * 2}
    told = document("exception.resolved") | {"resolution": mandate}
    check_payload("exception.resolved", told)
    at(told, ("resolution",))["signatures"] = [signature]
    assert finding("exception.resolved", told).field == "payload.resolution.signatures"


@pytest.mark.parametrize("changed", [None, [], "x", 1])
def test_only_an_object_is_a_payload(changed: object) -> None:
    """What is no object is refused as the payload itself."""
    assert finding("plan.ready", changed).field == "payload"


def test_evidence_of_another_kind() -> None:
    """Evidence is read by its kind, and there are no other kinds."""
    told = Tagged("evidence", {"a": Shape("a", {}, {})})
    for value, field in (({}, "kind"), ({"kind": "b"}, "kind"), ({"kind": 3}, "kind"), ("x", "")):
        with pytest.raises(FieldInvalid) as caught:
            told.check(value)
        assert caught.value.field == field
