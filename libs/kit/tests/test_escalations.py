"""What is recorded on chain of escalations: its bytes, and that the journal's entries give the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lockstep_kit import escalations
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.canonical import Document, canonical
from lockstep_kit.escalations import EscalationKind, escalation_hash, said_in
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.journal_payloads import check_payload

PLAN = PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11")
DIGEST = sha256(b"plan")
ESCALATION = "0b5f3d6e-2f7c-5d3a-8f57-1d3f2f0f9c11"
AT = datetime(2026, 11, 22, 12, 30, 0, 5, tzinfo=UTC)
AT_RISK = (Amount(AssetId("USD"), 150_000, 2), Amount(AssetId("EUR"), 100, 2))

RAISED: dict[str, Document] = {
    "version": 1,
    "plan_digest": DIGEST.hex(),
    "reason": {"reason": "LEG_REFUSED", "detail": "the account is closed"},
    "leg": {"leg_id": "cash", "kind": "credit_transfer"},
    "escalation": escalations.escalation_document(ESCALATION, AT_RISK),
}


def forgotten(verb: str = "FORGET") -> dict[str, Document]:
    signature: Document = {
        "actor": "operator-one",
        "nonce": "00" * 16,
        "expires_at": "2026-11-22T13:00:00.000000Z",
        "key_id": "0011223344556677",
        "signature": "22" * 64,
    }
    resolution: Document = {
        "plan_digest": DIGEST.hex(),
        "escalation_id": ESCALATION,
        "verb": verb,
        "leg_id": "",
        "detail": "the bank has booked it",
    }
    return {
        "version": 1,
        "plan_digest": DIGEST.hex(),
        "resolution": {"resolution": resolution, "digest": "33" * 32, "signatures": [signature, signature]},
    }


def test_the_bytes_that_are_hashed() -> None:
    """The documents are these bytes, for ever: whoever hashed them before must find the same."""
    opened = escalations.opened(PLAN, DIGEST, ESCALATION, reason="LEG_REFUSED", leg_id="cash", at_risk=AT_RISK, at=AT)
    resolved = escalations.resolved(PLAN, DIGEST, ESCALATION, resolution=sha256(b"resolution"), at=AT)
    assert opened.document == (
        b'{"at_risk":[{"asset":"EUR","minor_units":"100","scale":2},{"asset":"USD","minor_units":"150000","scale":2}],'
        b'"escalation_id":"' + ESCALATION.encode() + b'","kind":"OPENED","leg_id":"cash",'
        b'"opened_at":"2026-11-22T12:30:00.000005Z","plan_digest":"'
        + DIGEST.hex().encode()
        + b'","plan_id":"'
        + PLAN.encode()
        + b'",'
        b'"reason":"LEG_REFUSED","version":1}'
    )
    assert resolved.document == (
        b'{"escalation_id":"' + ESCALATION.encode() + b'","kind":"RESOLVED","plan_digest":"' + DIGEST.hex().encode() + b'",'
        b'"plan_id":"' + PLAN.encode() + b'","resolution":"' + sha256(b"resolution").hex().encode() + b'",'
        b'"resolved_at":"2026-11-22T12:30:00.000005Z","version":1}'
    )
    assert opened.digest == sha256(opened.document)
    assert escalation_hash(ESCALATION) == sha256(ESCALATION.encode())


def test_the_journal_gives_the_same_opening() -> None:
    """A payload that the journal takes, read back from its bytes, with the entry's plan and time, gives the document that was recorded."""
    check_payload("exception.raised", RAISED)
    told = json.loads(canonical(RAISED))
    opened = escalations.opened(PLAN, DIGEST, ESCALATION, reason="LEG_REFUSED", leg_id="cash", at_risk=AT_RISK, at=AT)
    assert said_in("exception.raised", PLAN, AT, told) == opened
    del told["leg"]
    about_none = escalations.opened(PLAN, DIGEST, ESCALATION, reason="LEG_REFUSED", leg_id="", at_risk=AT_RISK, at=AT)
    assert said_in("exception.raised", PLAN, AT, told) == about_none


def test_the_journal_gives_the_same_resolution() -> None:
    """What two operators signed to close it gives the document; what they signed to do about it closes nothing."""
    check_payload("exception.resolved", forgotten())
    told = said_in("exception.resolved", PLAN, AT, json.loads(canonical(forgotten())))
    assert told is not None
    assert (told.kind, told.escalation_id) == (EscalationKind.RESOLVED, ESCALATION)
    assert json.loads(told.document)["resolution"] == "33" * 32
    for verb in ("RETRY", "REVERSE", "RESOLVE"):
        assert said_in("exception.resolved", PLAN, AT, forgotten(verb)) is None
    assert said_in("exception.resolved", PLAN, AT, {"version": 1, "plan_digest": DIGEST.hex()}) is None


def test_what_says_nothing() -> None:
    """An entry of before there were records, and one of another type, say nothing."""
    before = {name: value for name, value in RAISED.items() if name != "escalation"}
    check_payload("exception.raised", before)
    assert said_in("exception.raised", PLAN, AT, before) is None
    assert said_in("plan.aborted", PLAN, AT, RAISED) is None


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"escalation_id": ""}, "payload.escalation.escalation_id"),
        ({"at_risk": [{"asset": "EUR", "minor_units": "0", "scale": 2}]}, "payload.escalation.at_risk[0].minor_units"),
        ({"at_risk": [{"asset": "EUR", "minor_units": "1", "scale": 37}]}, "payload.escalation.at_risk[0].scale"),
        ({"more": "x"}, "payload.escalation.more"),
    ],
)
def test_the_journal_refuses_another_form(changed: dict[str, Any], field: str) -> None:
    """What of an escalation stands in a payload has one form."""
    payload = {**RAISED, "escalation": {**RAISED["escalation"], **changed}}  # type: ignore[dict-item]
    with pytest.raises(FieldInvalid) as refused:
        check_payload("exception.raised", payload)
    assert refused.value.field == field


def test_every_part_is_hashed() -> None:
    """Whatever is told otherwise gives another hash."""
    first = said_in("exception.raised", PLAN, AT, RAISED)
    assert first is not None
    others = [
        said_in("exception.raised", PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a12"), AT, RAISED),
        said_in("exception.raised", PLAN, AT.replace(microsecond=6), RAISED),
        said_in("exception.raised", PLAN, AT, {**RAISED, "plan_digest": sha256(b"another").hex()}),
        said_in("exception.raised", PLAN, AT, {**RAISED, "reason": {"reason": "LEG_TROUBLE", "detail": ""}}),
        said_in("exception.raised", PLAN, AT, {**RAISED, "leg": {"leg_id": "tokens", "kind": "token_transfer"}}),
        said_in("exception.raised", PLAN, AT, {**RAISED, "escalation": escalations.escalation_document("another", AT_RISK)}),
        said_in("exception.raised", PLAN, AT, {**RAISED, "escalation": escalations.escalation_document(ESCALATION, AT_RISK[:1])}),
    ]
    digests = {each.digest for each in others if each is not None}
    assert len(digests) == len(others)
    assert first.digest not in digests
