"""Commands of ParticipantService for a plan of `factories`, as messages; any field can be bent after."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep_kit.certificate import AbortAuthority, Certificate, Decision
from lockstep_kit.convert import (
    authority_to_pb,
    binding_to_pb,
    certificate_to_pb,
    epoch_to_pb,
    gate_to_pb,
    permit_to_pb,
    reverse_authority_to_pb,
    time_to_pb,
)
from lockstep_kit.fence import Epoch
from lockstep_kit.participant.convert import closing_to_pb
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.permits import Permit
from lockstep_kit.plan import LegKind
from lockstep_kit.reversals import ReverseAuthority
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import PlanCase

FIRST_EPOCH: Final = Epoch(1, 1)
#: A token payer's signature, where nobody checks it.
PAYER_SIGNATURE: Final = bytes(65)


def prepare(
    plan: PlanCase,
    leg_id: str,
    *,
    epoch: Epoch = FIRST_EPOCH,
    prepare_by: datetime | None = None,
    hold_until: datetime | None = None,
    payer_signature: bytes = PAYER_SIGNATURE,
    permit: Permit | None = None,
) -> leg_pb2.PrepareCommand:
    """Asks for a leg's promise; it comes too late at the plan's deadline, and must stand ten minutes longer, unless told otherwise."""
    return leg_pb2.PrepareCommand(
        epoch=epoch_to_pb(epoch),
        binding=binding_to_pb(plan.binding(leg_id)),
        make=gate_to_pb(plan.gate(Gate.MAKE)),
        prepare_by=time_to_pb(prepare_by or plan.header.deadline),
        hold_until=time_to_pb(hold_until or plan.header.deadline + timedelta(minutes=10)),
        payer_signature=payer_signature if plan.leg(leg_id).kind is LegKind.TOKEN_TRANSFER else b"",
        permit=None if permit is None else permit_to_pb(permit),
    )


def commit(
    plan: PlanCase,
    leg_id: str,
    certificate: Certificate,
    *,
    epoch: Epoch = FIRST_EPOCH,
    not_after: datetime | None = None,
    closing: Closing | None = None,
) -> leg_pb2.CommitCommand:
    """Orders a leg's execution; evidence legs are told how the plan closed."""
    command = leg_pb2.CommitCommand(epoch=epoch_to_pb(epoch), binding=binding_to_pb(plan.binding(leg_id)))
    if plan.leg(leg_id).settling:
        command.key = plan.key(leg_id)
    else:
        command.closing.CopyFrom(closing_to_pb(closing or plan.closing()))
    if certificate.decision is Decision.DELEGATED:
        command.not_after.CopyFrom(time_to_pb(not_after or plan.header.deadline))
    return command


def abort(
    plan: PlanCase,
    leg_id: str,
    authority: AbortAuthority | None = None,
    *,
    epoch: Epoch = FIRST_EPOCH,
    closing: Closing | None = None,
) -> leg_pb2.AbortCommand:
    """Orders a leg's release; because the maker cancelled, unless told otherwise."""
    because = authority or plan.gate(Gate.CANCEL)
    command = leg_pb2.AbortCommand(
        epoch=epoch_to_pb(epoch), binding=binding_to_pb(plan.binding(leg_id)), authority=authority_to_pb(because)
    )
    if not plan.leg(leg_id).settling:
        command.closing.CopyFrom(closing_to_pb(closing or plan.closing(PlanOutcome.ABORTED)))
    return command


def reverse(
    plan: PlanCase, leg_id: str, authority: ReverseAuthority | None = None, *, epoch: Epoch = FIRST_EPOCH
) -> leg_pb2.ReverseCommand:
    """Orders that an executed leg be undone; because two operators say so, unless told otherwise."""
    return leg_pb2.ReverseCommand(
        epoch=epoch_to_pb(epoch),
        binding=binding_to_pb(plan.binding(leg_id)),
        authority=reverse_authority_to_pb(authority or plan.reversal()),
    )


def prepare_request(*commands: leg_pb2.PrepareCommand, wait: float = 0) -> participant_service_pb2.PrepareRequest:
    """A batch to prepare."""
    return participant_service_pb2.PrepareRequest(commands=commands, wait=duration(wait))


def commit_request(
    commands: Iterable[leg_pb2.CommitCommand], *certificates: Certificate, wait: float = 0
) -> participant_service_pb2.CommitRequest:
    """A batch to execute."""
    return participant_service_pb2.CommitRequest(
        commands=commands, certificates=[certificate_to_pb(each) for each in certificates], wait=duration(wait)
    )


def abort_request(*commands: leg_pb2.AbortCommand, wait: float = 0) -> participant_service_pb2.AbortRequest:
    """A batch to release."""
    return participant_service_pb2.AbortRequest(commands=commands, wait=duration(wait))


def reverse_request(*commands: leg_pb2.ReverseCommand, wait: float = 0) -> participant_service_pb2.ReverseRequest:
    """A batch to reverse."""
    return participant_service_pb2.ReverseRequest(commands=commands, wait=duration(wait))


def duration(seconds: float) -> Duration:
    """Seconds as a message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
