"""JournalService's messages."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from coordinator.store.outboxes import PendingEvent
from lockstep.journal.v1 import journal_service_pb2
from lockstep_kit.convert import enum_from_pb, epoch_to_pb, time_to_pb
from lockstep_kit.fields import require
from lockstep_kit.ids import journal_event_id
from lockstep_kit.values import dataclass


class AppendVerdict(StrEnum):
    """What became of an event."""

    APPENDED = "APPENDED"
    GAP = "GAP"
    CONFLICT = "CONFLICT"
    SEALED = "SEALED"
    INVALID = "INVALID"
    STALE = "STALE"


VERDICTS: Final = {
    journal_service_pb2.APPEND_VERDICT_APPENDED: AppendVerdict.APPENDED,
    journal_service_pb2.APPEND_VERDICT_GAP: AppendVerdict.GAP,
    journal_service_pb2.APPEND_VERDICT_CONFLICT: AppendVerdict.CONFLICT,
    journal_service_pb2.APPEND_VERDICT_SEALED: AppendVerdict.SEALED,
    journal_service_pb2.APPEND_VERDICT_INVALID: AppendVerdict.INVALID,
    journal_service_pb2.APPEND_VERDICT_STALE: AppendVerdict.STALE,
}


@dataclass(frozen=True, slots=True)
class AppendAnswer:
    """The journal's answer to one event."""

    #: What became of it.
    verdict: AppendVerdict
    #: GAP: the sequence that the chain expects next.
    expected: int
    #: One sentence, when it was not appended.
    message: str


def append_request(events: Sequence[PendingEvent]) -> journal_service_pb2.AppendRequest:
    """Events to append."""
    return journal_service_pb2.AppendRequest(
        events=[
            journal_service_pb2.Event(
                plan_id=each.plan_id,
                sequence=each.event.sequence,
                event_id=journal_event_id(each.plan_id, each.event.sequence),
                type=each.event.type.value,
                actor=each.event.actor,
                actor_role=each.event.actor_role,
                event_time=time_to_pb(each.event_time),
                payload=each.event.payload,
                epoch=epoch_to_pb(each.epoch),
            )
            for each in events
        ]
    )


def append_answers(response: journal_service_pb2.AppendResponse, events: Sequence[PendingEvent]) -> list[AppendAnswer]:
    """The answers, in the order of the events.

    Raises:
        FieldInvalid: not one of each event; nothing of such a response is believed.
    """
    require(len(response.answers) == len(events), "answers", "must be one of each event")
    return [
        AppendAnswer(enum_from_pb(VERDICTS, each.verdict, "verdict"), each.expected_sequence, each.message)
        for each in response.answers
    ]
