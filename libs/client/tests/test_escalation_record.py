"""What stands on chain of an escalation: what each of coordinator, notary and node says, and what does not hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.notary.v1 import escalation_record_pb2 as records
from lockstep_client.escalation_record import Stands, check_records
from lockstep_contracts.notary import KnownEscalation
from lockstep_kit import escalations
from lockstep_kit.escalations import Said
from lockstep_kit.ids import PlanId, sha256

PLAN = PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11")
DIGEST = sha256(b"plan")
TICKET = "7ae9c51c-5af9-539f-ab17-945127ffa0be"
CLOSING = sha256(b"resolution")
AT, LATER = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 2, tzinfo=UTC)
OPENED = escalations.opened(PLAN, DIGEST, TICKET, reason="LEG_REFUSED", leg_id="cash", at_risk=(), at=AT)
RESOLVED = escalations.resolved(PLAN, DIGEST, TICKET, resolution=CLOSING, at=LATER)
KNOWN = KnownEscalation(DIGEST, OPENED.digest, RESOLVED.digest)


def file_of(*documents: Said) -> messages.EscalationFile:
    """A closed ticket, as the coordinator shows it."""
    ticket = settlement.Escalation(escalation_id=TICKET, reason="LEG_REFUSED", leg_id="cash")
    ticket.raise_time.FromDatetime(AT)
    ticket.resolve_time.FromDatetime(LATER)
    file = messages.EscalationFile(escalation=ticket, plan_id=PLAN, plan_digest=DIGEST)
    closing = file.resolutions.add(digest=CLOSING)
    closing.effect_time.FromDatetime(LATER)
    for each in documents:
        file.documents.add(document=each.document).tell_time.FromDatetime(LATER)
    return file


def kept(*said: Said, block: int = 7) -> list[records.EscalationRecord]:
    kinds = {"OPENED": records.ESCALATION_RECORD_KIND_OPENED, "RESOLVED": records.ESCALATION_RECORD_KIND_RESOLVED}
    found = []
    for each in said:
        record = records.EscalationRecord(
            statement=records.EscalationStatement(
                plan_id=each.plan_id,
                plan_digest=each.plan_digest,
                escalation_id=each.escalation_id,
                kind=kinds[each.kind.value],
                document_hash=each.digest,
            )
        )
        if block:
            record.entry.block_number = block
        found.append(record)
    return found


def stands(
    file: messages.EscalationFile, theirs: list[records.EscalationRecord] | None, known: KnownEscalation | None
) -> tuple[list[Stands], set[str]]:
    views, findings = check_records(file, theirs, known)
    return [each.stands for each in views], {each.rule for each in findings}


def test_what_everybody_says_alike() -> None:
    """The further a record has come, the better the word for it."""
    file = file_of(OPENED, RESOLVED)
    both = kept(OPENED, RESOLVED)
    assert stands(file, both, KNOWN) == ([Stands.ON_CHAIN] * 2, set())
    assert stands(file, both, None) == ([Stands.RECORDED] * 2, set())
    assert stands(file, kept(OPENED, RESOLVED, block=0), None) == ([Stands.KEPT] * 2, set())
    assert stands(file, None, None) == ([Stands.TOLD] * 2, set())
    assert stands(file, kept(OPENED, RESOLVED, block=0), replace(KNOWN, resolved=b"")) == ([Stands.ON_CHAIN, Stands.KEPT], set())
    assert [each.block_number for each in check_records(file, both, KNOWN)[0]] == [7, 7]
    for each in file.documents:
        each.ClearField("tell_time")
    assert stands(file, [], KnownEscalation(b"", b"", b"")) == ([Stands.UNTOLD] * 2, set())


def test_an_escalation_of_before_there_were_records() -> None:
    """Nothing is said of it by anybody, and nothing is wrong with that."""
    assert stands(file_of(), [], KnownEscalation(b"", b"", b"")) == ([], set())


OTHER = escalations.opened(PLAN, DIGEST, TICKET, reason="LEG_REFUSED", leg_id="cash", at_risk=(), at=LATER)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda f: f.documents.add(document=OTHER.document), "ESCALATION_DOCUMENT"),
        (lambda f: setattr(f.escalation, "reason", "LEG_TROUBLE"), "ESCALATION_DOCUMENT"),
        (lambda f: setattr(f.escalation, "leg_id", "tokens"), "ESCALATION_DOCUMENT"),
        (lambda f: f.escalation.raise_time.FromDatetime(LATER), "ESCALATION_DOCUMENT"),
        (lambda f: setattr(f, "plan_id", "8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a12"), "ESCALATION_DOCUMENT"),
        (lambda f: f.resolutions.pop(), "ESCALATION_DOCUMENT"),
        (lambda f: setattr(f.documents[0], "document", b"{}"), "ESCALATION_DOCUMENT"),
        (lambda f: setattr(f.documents[0], "refusal", "another"), "ESCALATION_RECORD_REFUSED"),
        (lambda f: f.documents.pop(), "ESCALATION_UNSHOWN"),
        (lambda f: setattr(f, "plan_digest", sha256(b"another")), "ESCALATION_CHAIN_DIFFERS"),
    ],
)
def test_what_the_coordinator_shows_otherwise(change: Callable[[messages.EscalationFile], object], rule: str) -> None:
    """A coordinator that shows a ticket otherwise than it was recorded, or hides a record, is found out."""
    file = file_of(OPENED, RESOLVED)
    change(file)
    assert rule in stands(file, kept(OPENED, RESOLVED), KNOWN)[1]


@pytest.mark.parametrize(
    ("theirs", "known", "rule"),
    [
        (kept(OTHER, RESOLVED), None, "ESCALATION_RECORD_DIFFERS"),
        (kept(OPENED), None, "ESCALATION_RECORD_DIFFERS"),
        (kept(OPENED, RESOLVED), replace(KNOWN, opened=OTHER.digest), "ESCALATION_CHAIN_DIFFERS"),
        (kept(OPENED, RESOLVED), replace(KNOWN, plan_digest=sha256(b"another")), "ESCALATION_CHAIN_DIFFERS"),
        (kept(OPENED, RESOLVED), replace(KNOWN, resolved=b""), "ESCALATION_CHAIN_DIFFERS"),
        (None, replace(KNOWN, resolved=OTHER.digest), "ESCALATION_CHAIN_DIFFERS"),
    ],
)
def test_what_the_notary_or_the_chain_say_otherwise(
    theirs: list[records.EscalationRecord] | None, known: KnownEscalation | None, rule: str
) -> None:
    """Another document, another plan, a record that is missing where it was said to be: named."""
    assert stands(file_of(OPENED, RESOLVED), theirs, known)[1] == {rule}


def test_what_can_never_stand_on_chain() -> None:
    """The notary's trouble with a record is shown."""
    theirs = kept(OPENED, RESOLVED, block=0)
    theirs[0].trouble = "the registry knows it otherwise"
    assert stands(file_of(OPENED, RESOLVED), theirs, None)[1] == {"ESCALATION_RECORD_REFUSED"}
