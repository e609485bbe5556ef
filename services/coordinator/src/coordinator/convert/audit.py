"""Abort audit logs: their message, and what the kept changes say that they are written from."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from coordinator.audit import CopyState, Heard, Shown
from coordinator.notices import TAKEN_OVER
from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2
from lockstep.participant.v1 import leg_pb2
from lockstep_kit.convert import enum_to_pb, outcome_to_pb, time_to_pb
from lockstep_kit.participant.convert import PHASES

COPY_STATES: Final = {
    settlement_service_pb2.AUDIT_COPY_STATE_INTACT: CopyState.INTACT,
    settlement_service_pb2.AUDIT_COPY_STATE_MISSING: CopyState.MISSING,
    settlement_service_pb2.AUDIT_COPY_STATE_CORRUPT: CopyState.CORRUPT,
}


def audit_to_pb(shown: Shown) -> settlement_service_pb2.GetAbortAuditLogResponse:
    """A log as clients see it."""
    return settlement_service_pb2.GetAbortAuditLogResponse(
        log=shown.log.octets,
        sha256=shown.log.digest,
        write_time=time_to_pb(shown.log.written_at),
        earlier_sha256=shown.earlier,
        copy=enum_to_pb(COPY_STATES, shown.copy),
        notarisations=[outcome_to_pb(each) for each in shown.notarisations],
    )


def heard_of(octets: bytes, at: datetime) -> Heard | None:
    """What a kept change says that a participant said of a leg; None where it says nothing of the kind."""
    message = settlement_pb2.PlanEvent.FromString(octets)
    if not message.HasField("leg") or message.leg.phase == leg_pb2.LEG_PHASE_UNSPECIFIED:
        return None
    return Heard(message.leg.leg.leg_id, PHASES[message.leg.phase], at)


def tells_of_take_over(octets: bytes) -> bool:
    """Whether a kept change is the notice that another replica goes on with the plan."""
    return settlement_pb2.PlanEvent.FromString(octets).notice.reason == TAKEN_OVER
