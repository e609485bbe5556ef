"""Between protobuf and domain for the journal's own services."""

from __future__ import annotations

from typing import Final

from event_journal.appending import Answer, Submission, Verdict
from event_journal.chain import Entry, Event, Verification
from lockstep.journal.v1 import entry_pb2, journal_reader_service_pb2, journal_service_pb2, key_history_pb2
from lockstep_kit import ids
from lockstep_kit.convert import enum_to_pb, epoch_from_pb, signature_to_pb, time_from_pb, time_to_pb
from lockstep_kit.fields import within
from lockstep_kit.key_history import SignedKey

VERDICTS: Final = {
    journal_service_pb2.APPEND_VERDICT_APPENDED: Verdict.APPENDED,
    journal_service_pb2.APPEND_VERDICT_GAP: Verdict.GAP,
    journal_service_pb2.APPEND_VERDICT_CONFLICT: Verdict.CONFLICT,
    journal_service_pb2.APPEND_VERDICT_SEALED: Verdict.SEALED,
    journal_service_pb2.APPEND_VERDICT_INVALID: Verdict.INVALID,
    journal_service_pb2.APPEND_VERDICT_STALE: Verdict.STALE,
}


def submission_from_pb(message: journal_service_pb2.Event, field: str) -> Submission:
    """An event as its writer sent it; its form rules are answered per event."""
    event = Event(
        plan_id=ids.plan_id(message.plan_id, f"{field}.plan_id"),
        sequence=message.sequence,
        event_id=message.event_id,
        type=message.type,
        actor=message.actor,
        actor_role=message.actor_role,
        event_time=time_from_pb(message.event_time, f"{field}.event_time"),
        payload=message.payload,
    )
    with within(field):
        return Submission(event, epoch_from_pb(message.epoch))


def answer_to_pb(answer: Answer) -> journal_service_pb2.AppendAnswer:
    """An answer as a message."""
    return journal_service_pb2.AppendAnswer(
        verdict=enum_to_pb(VERDICTS, answer.verdict),
        entry_hash=answer.entry_hash or b"",
        expected_sequence=answer.expected_sequence,
        message=answer.message,
    )


def entry_to_pb(entry: Entry, position: int) -> entry_pb2.Entry:
    """An entry as a message, with its place in the journal's order."""
    event = entry.event
    return entry_pb2.Entry(
        plan_id=event.plan_id,
        sequence=event.sequence,
        position=position,
        event_id=event.event_id,
        type=event.type,
        actor=event.actor,
        actor_role=event.actor_role,
        event_time=time_to_pb(event.event_time),
        payload=event.payload,
        payload_hash=entry.payload_hash,
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
        canonical_bytes=entry.canonical_bytes,
        signature=signature_to_pb(entry.signature),
        erased=entry.erased,
    )


def verification_to_pb(found: Verification) -> journal_reader_service_pb2.VerifyPlanResponse:
    """A verification as a message."""
    return journal_reader_service_pb2.VerifyPlanResponse(
        valid=found.valid,
        entry_count=found.entry_count,
        head_hash=found.head_hash,
        sealed=found.sealed,
        findings=[
            journal_reader_service_pb2.VerificationFinding(sequence=each.sequence, rule=each.rule, message=each.message)
            for each in found.findings
        ],
        payloads_erased=found.payloads_erased,
    )


def signed_key_to_pb(signed: SignedKey) -> key_history_pb2.SignedKey:
    """A key of the history as a message."""
    return key_history_pb2.SignedKey(statement=signed.statement, signatures=[signature_to_pb(each) for each in signed.signatures])
