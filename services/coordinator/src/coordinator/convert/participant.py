"""ParticipantService's messages: commands out, reports and capabilities in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final

from coordinator import facts
from coordinator.certificates import assemble
from coordinator.commands import Command
from coordinator.dossier import Dossier
from coordinator.model import Order
from coordinator.reports import LegReport
from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep_kit import ids
from lockstep_kit.certificate import Decision
from lockstep_kit.convert import (
    ANCHORINGS,
    PROMISES,
    authority_to_pb,
    binding_octets,
    binding_to_pb,
    certificate_octets,
    count_from_pb,
    enum_from_pb,
    epoch_to_pb,
    gate_octets,
    outcome_from_pb,
    permit_to_pb,
    reverse_authority_to_pb,
    time_to_pb,
    vote_from_pb,
)
from lockstep_kit.convert.hours import hours_from_pb
from lockstep_kit.convert.parts import part
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import require, within
from lockstep_kit.keys import leg_key
from lockstep_kit.participant.convert import PHASES, VERDICTS, closing_to_pb
from lockstep_kit.participant.ports import AssetCapability, Capabilities
from lockstep_kit.participant.records import Verdict
from lockstep_kit.reversals import OperatorsResolution, PolicyUnwind
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass

#: Longest sentence of a participant that is kept.
TROUBLE_LENGTH_MAX: Final = 500

_PREPARES, _COMMITS = (
    part(participant_service_pb2.PrepareRequest, "commands"),
    part(participant_service_pb2.CommitRequest, "commands"),
)
_CERTIFICATES = part(participant_service_pb2.CommitRequest, "certificates")
_PREPARED, _MADE = part(leg_pb2.PrepareCommand, "binding"), part(leg_pb2.PrepareCommand, "make")
_COMMITTED = part(leg_pb2.CommitCommand, "binding")


class CallName(StrEnum):
    """The RPC that carries a command."""

    PREPARE = "Prepare"
    COMMIT = "Commit"
    ABORT = "Abort"
    REVERSE = "Reverse"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A command with all that its message needs."""

    #: The command.
    command: Command
    #: Its plan.
    dossier: Dossier
    #: Lease of the sender.
    epoch: Epoch
    #: COMMIT of settling legs: the plan's key; b"" elsewhere.
    plan_key: bytes
    #: W3C trace context in which the participant goes on.
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A participant's answer to one command."""

    #: How it stands.
    verdict: Verdict
    #: What it knows of the leg; None: nothing.
    report: leg_pb2.LegReport | None
    #: Why nothing was changed, when rejected.
    reason: str
    #: The same as a sentence.
    message: str


def prepare_request(batch: Sequence[Outgoing], margin: timedelta) -> participant_service_pb2.PrepareRequest:
    """A batch of Prepare."""
    return participant_service_pb2.PrepareRequest.FromString(b"".join(_PREPARES(_prepare(each, margin)) for each in batch))


def _prepare(each: Outgoing, margin: timedelta) -> bytes:
    dossier = each.dossier
    make, file = facts.gate(dossier.plan, Gate.MAKE), dossier.file(each.command.leg_id)
    if make is None or file is None:
        raise AssertionError(f"plan {dossier.plan_id} has no maker, or no leg {each.command.leg_id}")
    message = leg_pb2.PrepareCommand(
        epoch=epoch_to_pb(each.epoch),
        prepare_by=time_to_pb(dossier.header.deadline),
        hold_until=time_to_pb(dossier.header.deadline + margin),
        payer_signature=file.payer_signature,
        permit=None if file.permit is None else permit_to_pb(file.permit),
        traceparent=each.traceparent or "",
    )
    bound = _PREPARED(binding_octets(dossier.binding(each.command.leg_id))) + _MADE(gate_octets(make.signed))
    return bound + message.SerializeToString(deterministic=True)


def commit_request(batch: Sequence[Outgoing]) -> participant_service_pb2.CommitRequest:
    """A batch of Commit, with one certificate of each plan."""
    certificates = {each.dossier.plan_id: each.dossier for each in batch}
    octets = [_COMMITS(_commit(each)) for each in batch]
    octets += [_CERTIFICATES(certificate_octets(assemble(dossier))) for dossier in certificates.values()]
    return participant_service_pb2.CommitRequest.FromString(b"".join(octets))


def _commit(each: Outgoing) -> bytes:
    command, binding = each.command, each.dossier.binding(each.command.leg_id)
    message = leg_pb2.CommitCommand(epoch=epoch_to_pb(each.epoch), traceparent=each.traceparent or "")
    if binding.leg.settling:
        message.key = leg_key(each.plan_key, command.plan_id, command.leg_id)
    # A delegated leg that has decided is told so by its own Done: that it is not begun late has been seen to.
    if command.not_after is not None and each.dossier.plan.decision is Decision.DELEGATED:
        message.not_after.CopyFrom(time_to_pb(command.not_after))
    if command.closing is not None:
        message.closing.CopyFrom(closing_to_pb(command.closing))
    return _COMMITTED(binding_octets(binding)) + message.SerializeToString(deterministic=True)


def abort_request(batch: Sequence[Outgoing]) -> participant_service_pb2.AbortRequest:
    """A batch of Abort."""
    return participant_service_pb2.AbortRequest(commands=[_abort(each) for each in batch])


def _abort(each: Outgoing) -> leg_pb2.AbortCommand:
    command = each.command
    if command.authority is None or isinstance(command.authority, OperatorsResolution | PolicyUnwind):
        raise AssertionError("nothing is aborted without authority")
    message = leg_pb2.AbortCommand(
        epoch=epoch_to_pb(each.epoch),
        binding=binding_to_pb(each.dossier.binding(command.leg_id)),
        authority=authority_to_pb(command.authority),
        traceparent=each.traceparent or "",
    )
    if command.closing is not None:
        message.closing.CopyFrom(closing_to_pb(command.closing))
    return message


def reverse_request(batch: Sequence[Outgoing]) -> participant_service_pb2.ReverseRequest:
    """A batch of Reverse."""
    return participant_service_pb2.ReverseRequest(commands=[_reverse(each) for each in batch])


def _reverse(each: Outgoing) -> leg_pb2.ReverseCommand:
    command = each.command
    if not isinstance(command.authority, OperatorsResolution | PolicyUnwind):
        raise AssertionError("nothing is reversed without authority")
    return leg_pb2.ReverseCommand(
        epoch=epoch_to_pb(each.epoch),
        binding=binding_to_pb(each.dossier.binding(command.leg_id)),
        authority=reverse_authority_to_pb(command.authority),
        traceparent=each.traceparent or "",
    )


#: Which RPC carries which order.
CALLS: Final = {
    Order.PREPARE: CallName.PREPARE,
    Order.COMMIT: CallName.COMMIT,
    Order.ABORT: CallName.ABORT,
    Order.REVERSE: CallName.REVERSE,
}


def answers_from_pb(messages: Sequence[leg_pb2.CommandAnswer], batch: Sequence[Outgoing]) -> list[Answered]:
    """The answers to a batch, in its order.

    Raises:
        FieldInvalid: not one of each command in their order; nothing of such a response is believed.
    """
    require(len(messages) == len(batch), "answers", "must be one of each command")
    found = []
    for index, (message, each) in enumerate(zip(messages, batch, strict=True)):
        with within(f"answers[{index}]"):
            same = (message.plan_id, message.leg_id) == (each.command.plan_id, each.command.leg_id)
            require(same, "leg_id", "must be the command's leg")
            verdict = enum_from_pb(VERDICTS, message.verdict, "verdict")
        report = message.report if message.HasField("report") else None
        found.append(Answered(verdict, report, message.rejection.reason, message.rejection.message))
    return found


def report_from_pb(message: leg_pb2.LegReport) -> LegReport:
    """A participant's report, its form checked; what it proves is `reports.admit`'s to say.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    with within("vote"):
        vote = vote_from_pb(message.vote) if message.HasField("vote") else None
    with within("outcome"):
        outcome = outcome_from_pb(message.outcome) if message.HasField("outcome") else None
    with within("reversal"):
        reversal = outcome_from_pb(message.reversal) if message.HasField("reversal") else None
    return LegReport(
        plan_id=ids.plan_id(message.plan_id),
        leg_id=ids.leg_id(message.leg_id),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        phase=enum_from_pb(PHASES, message.phase, "phase"),
        revision=count_from_pb(message.revision, "revision"),
        vote=vote,
        outcome=outcome,
        trouble=message.trouble[:TROUBLE_LENGTH_MAX],
        reversal=reversal,
    )


def capabilities_from_pb(message: participant_service_pb2.DescribeResponse) -> Capabilities:
    """What a participant says of itself.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    expires = message.promise_expires
    require(not expires or message.HasField("promise_max"), "promise_max", "must be present when promises lapse")
    return Capabilities(
        leg_kinds=tuple(message.leg_kinds),
        promise_kind=enum_from_pb(PROMISES, message.promise_kind, "promise_kind"),
        promise_max=message.promise_max.ToTimedelta() if expires else None,
        assets=tuple(_asset_from_pb(index, each) for index, each in enumerate(message.assets)),
        venues=tuple(message.venues),
        firm_kinds=tuple(message.firm_leg_kinds),
        promise_margin=message.promise_margin.ToTimedelta(),
        # A way that this version does not know is of no use to it.
        anchorings=tuple(each for number, each in ANCHORINGS.items() if number in message.anchoring),
    )


def _asset_from_pb(index: int, message: participant_service_pb2.AssetCapability) -> AssetCapability:
    with within(f"assets[{index}]"):
        hours = hours_from_pb(message.windows) if message.cut_offs else None
    return AssetCapability(message.asset, message.scale, message.reversible, hours)
