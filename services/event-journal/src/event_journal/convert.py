"""Between protobuf and domain for the journal's own services."""

from __future__ import annotations

from typing import Final

import asyncpg

from event_journal.appending import Answer, Submission, Verdict
from event_journal.chain import Event, Verification
from event_journal.store import entry_of
from lockstep.journal.v1 import entry_pb2, journal_reader_service_pb2, journal_service_pb2
from lockstep_kit import ids
from lockstep_kit.convert import enum_to_pb, epoch_from_pb, signature_to_pb, time_from_pb, time_to_pb
from lockstep_kit.fields import within
from lockstep_kit.ids import sha256

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


def entry_to_pb(row: asyncpg.Record) -> entry_pb2.Entry:
    """A stored entry as a message."""
    entry = entry_of(row)
    event = entry.event
    return entry_pb2.Entry(
        plan_id=event.plan_id,
        sequence=event.sequence,
        position=row["position"],
        event_id=event.event_id,
        type=event.type,
        actor=event.actor,
        actor_role=event.actor_role,
        event_time=time_to_pb(event.event_time),
        payload=event.payload,
        payload_hash=sha256(event.payload),
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
        canonical_bytes=entry.canonical_bytes,
        signature=signature_to_pb(entry.signature),
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
    )
