"""Resolutions: two operators, the same matter, neither of them in the plan's gates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lockstep_kit.certificate import NotAuthorised
from lockstep_kit.convert import resolution_from_pb, resolution_to_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, sha256
from lockstep_kit.registry import Actor, RegisteredKey, Registry, Role
from lockstep_kit.resolutions import (
    Resolution,
    ResolutionSignature,
    ResolutionStatement,
    Verb,
    check_resolution,
    sign_resolution,
)
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import BankEvidence

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = {name: SigningKey(sha256(name.encode())) for name in ("olga", "omar", "vera")}
ROLES = {"olga": Role.OPERATOR, "omar": Role.OPERATOR, "vera": Role.VALIDATOR}
REGISTRY = Registry(
    [
        Actor(
            ActorId(name),
            frozenset({ROLES[name]}),
            (RegisteredKey(key.public, NOW - timedelta(days=1), NOW + timedelta(days=1)),),
        )
        for name, key in KEYS.items()
    ],
    [],
)
PLAN = sha256(b"plan")
REVERSE = Resolution(PLAN, "ticket-1", Verb.REVERSE)
ANSWER = Resolution(
    PLAN,
    "ticket-1",
    Verb.RESOLVE,
    "cash",
    executed=True,
    evidence=BankEvidence("BANKDEFF", "u", "ACSC"),
    detail="statement of today",
)


def signed(name: str, resolution: Resolution = REVERSE, minutes: float = 5) -> ResolutionSignature:
    """A resolution, signed by one of the persons."""
    nonce = sha256(name.encode())[:16]
    return sign_resolution(ResolutionStatement(resolution, nonce, NOW + timedelta(minutes=minutes)), KEYS[name])


def test_two_operators_count() -> None:
    """What two operators sign alike is their resolution."""
    assert check_resolution([signed("olga"), signed("omar")], PLAN, Verb.REVERSE, REGISTRY, NOW) == REVERSE


@pytest.mark.parametrize(
    ("signatures", "barred", "reason"),
    [
        ([signed("olga")], (), "RESOLUTION_SIGNERS"),
        ([signed("olga"), signed("olga", minutes=6)], (), "RESOLUTION_SAME_PERSON"),
        ([signed("olga"), signed("omar")], ("omar",), "RESOLUTION_SAME_PERSON"),
        ([signed("olga"), signed("vera")], (), "RESOLUTION_ROLE"),
        ([signed("olga"), signed("omar", minutes=0)], (), "RESOLUTION_EXPIRED"),
        ([signed("olga"), signed("omar", replace(REVERSE, escalation_id="ticket-2"))], (), "RESOLUTION_DIFFERS"),
        ([signed("olga", ANSWER), signed("omar", ANSWER)], (), "RESOLUTION_VERB"),
        ([signed("olga"), replace(signed("omar"), signature=signed("olga").signature)], (), "RESOLUTION_SIGNATURE"),
        (
            [signed(name, replace(REVERSE, plan_digest=sha256(b"other"))) for name in ("olga", "omar")],
            (),
            "RESOLUTION_PLAN_DIGEST",
        ),
    ],
)
def test_what_does_not_count(signatures: list[ResolutionSignature], barred: tuple[str, ...], reason: str) -> None:
    """Every way in which two signatures are no resolution has its name."""
    with pytest.raises(NotAuthorised) as refused:
        check_resolution(signatures, PLAN, Verb.REVERSE, REGISTRY, NOW, [ActorId(each) for each in barred])
    assert refused.value.reason == reason


@pytest.mark.parametrize("resolution", [REVERSE, ANSWER, Resolution(PLAN, "t", Verb.RESOLVE, detail="paid by hand")])
def test_message_and_back(resolution: Resolution) -> None:
    """A signed resolution is the same after the wire."""
    each = signed("olga", resolution)
    assert resolution_from_pb(resolution_to_pb(each)) == each


@pytest.mark.parametrize(
    ("resolution", "field"),
    [
        (replace(REVERSE, escalation_id=""), "escalation_id"),
        (replace(REVERSE, leg_id="cash"), "leg_id"),
        (replace(ANSWER, executed=None), "executed"),
        (replace(ANSWER, evidence=None), "evidence"),
        (replace(ANSWER, detail=""), "detail"),
        (replace(REVERSE, executed=True), "executed"),
        (replace(REVERSE, detail="x" * 501), "detail"),
    ],
)
def test_form(resolution: Resolution, field: str) -> None:
    """What is missing or one too many is named."""
    with pytest.raises(FieldInvalid) as finding:
        resolution.check()
    assert finding.value.field == field
