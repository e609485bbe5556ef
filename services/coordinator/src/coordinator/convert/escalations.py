"""NotaryService's messages about escalations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockstep.notary.v1 import escalation_record_pb2, notary_service_pb2
from lockstep_kit.convert import enum_to_pb
from lockstep_kit.escalations import EscalationKind, Said
from lockstep_kit.fields import require

KINDS: Final = {
    escalation_record_pb2.ESCALATION_RECORD_KIND_OPENED: EscalationKind.OPENED,
    escalation_record_pb2.ESCALATION_RECORD_KIND_RESOLVED: EscalationKind.RESOLVED,
}
_VERDICTS: Final = (escalation_record_pb2.RECORD_VERDICT_KEPT, escalation_record_pb2.RECORD_VERDICT_CONFLICT)


def record_request(said: Sequence[Said]) -> notary_service_pb2.RecordEscalationsRequest:
    """What is to be recorded."""
    return notary_service_pb2.RecordEscalationsRequest(
        statements=[
            escalation_record_pb2.EscalationStatement(
                plan_id=each.plan_id,
                plan_digest=each.plan_digest,
                escalation_id=each.escalation_id,
                kind=enum_to_pb(KINDS, each.kind),
                document_hash=each.digest,
            )
            for each in said
        ]
    )


def record_answers(response: notary_service_pb2.RecordEscalationsResponse, said: Sequence[Said]) -> list[str]:
    """Of each why the notary refused it, or "" where it is kept.

    Raises:
        FieldInvalid: not one of each; nothing of such a response is believed.
    """
    require(len(response.answers) == len(said), "answers", "must be one of each statement")
    for each in response.answers:
        require(each.verdict in _VERDICTS, "verdict", "must be one of the values that this version knows")
    kept = escalation_record_pb2.RECORD_VERDICT_KEPT
    return ["" if each.verdict == kept else each.message or "the notary holds something else" for each in response.answers]
