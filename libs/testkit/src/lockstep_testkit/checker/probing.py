"""Sends participants commands with epochs that they have seen overtaken, as a coordinator that lost its lease long ago would.

Only legs of plans at their end are tried: their fence is raised first, which nobody else may have use for any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from lockstep.participant.v1 import leg_pb2
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep.participant.v1.participant_service_pb2_grpc import ParticipantServiceStub
from lockstep.type.v1 import certificate_pb2, signature_pb2
from lockstep_kit.certificate import DeadlinePassed
from lockstep_kit.convert import authority_to_pb, epoch_to_pb, gate_to_pb, time_to_pb
from lockstep_kit.fence import Command, Epoch
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.rpc import channel
from lockstep_sandbox.stack import PARTICIPANTS, Sandbox
from lockstep_testkit.checker.collecting import leg_rows
from lockstep_testkit.checker.evidence import Evidence, PlanRow, Probe

CALL_SECONDS_MAX: Final = 60.0
#: Legs of each participant that are tried, the newest first.
LEGS_MAX: Final = 3
_VERDICTS: Final = {leg_pb2.COMMAND_VERDICT_REJECTED: "REJECTED"}


async def probe(sandbox: Sandbox, evidence: Evidence) -> tuple[Probe, ...]:
    """What every participant makes of old epochs, for legs of plans that are closed."""
    found: list[Probe] = []
    for name in PARTICIPANTS:
        rows = [row for row in evidence.legs[name] if row.binding is not None and _closed(evidence, row)]
        async with _stub(sandbox, name) as stub:
            for row in rows[-LEGS_MAX:]:
                found += await _try(sandbox, stub, name, row, evidence.plans[row.plan_id])
    return tuple(found)


def _closed(evidence: Evidence, row: LegRecord) -> bool:
    plan = evidence.plans.get(row.plan_id)
    return plan is not None and plan.ended and not plan.escalated


async def _try(sandbox: Sandbox, stub: ParticipantServiceStub, name: str, row: LegRecord, plan: PlanRow) -> list[Probe]:
    old = row.fence.epoch
    raised = Epoch(old.generation, old.counter + 1)
    request = messages.GetLegRequest(plan_id=row.plan_id, leg_id=row.leg_id, raise_to=epoch_to_pb(raised))
    await stub.GetLeg(request, timeout=CALL_SECONDS_MAX)
    found: list[Probe] = []
    for command in (Command.PREPARE, Command.COMMIT, Command.ABORT):
        if command is Command.COMMIT and row.certificate is None:
            continue
        before = await _row(sandbox, name, row)
        answer = (await _send(stub, command, row, plan, old))[0]
        verdict = _VERDICTS.get(answer.verdict, leg_pb2.CommandVerdict.Name(answer.verdict))
        after = await _row(sandbox, name, row)
        found.append(Probe(name, row.plan_id, row.leg_id, command.value, verdict, answer.rejection.reason, before, after))
    return found


async def _row(sandbox: Sandbox, name: str, row: LegRecord) -> LegRecord | None:
    return next((each for each in await leg_rows(sandbox, name) if each.key_of_leg == row.key_of_leg), None)


async def _send(
    stub: ParticipantServiceStub, command: Command, row: LegRecord, plan: PlanRow, epoch: Epoch
) -> Sequence[leg_pb2.CommandAnswer]:
    """The command as it might have been sent when the epoch was new."""
    binding = leg_pb2.LegBinding.FromString(row.binding or b"")
    closing = None if row.closing is None else leg_pb2.Closing.FromString(row.closing)
    token, deadline = epoch_to_pb(epoch), time_to_pb(plan.header.deadline)
    match command:
        case Command.PREPARE:
            # A leg that was told to abort before it was prepared has no signature; what is not well formed is refused before its epoch is looked at.
            unsigned = b"\0" if binding.leg.HasField("token_transfer") else b""
            prepare = leg_pb2.PrepareCommand(
                epoch=token,
                binding=binding,
                make=gate_to_pb(plan.gates[0][0]),
                prepare_by=deadline,
                hold_until=deadline if row.hold_until is None else time_to_pb(row.hold_until),
                payer_signature=row.payer_signature or unsigned,
                permit=None if row.permit is None else signature_pb2.Permit.FromString(row.permit),
            )
            return (await stub.Prepare(messages.PrepareRequest(commands=[prepare]), timeout=CALL_SECONDS_MAX)).answers
        case Command.COMMIT:
            commit = leg_pb2.CommitCommand(epoch=token, binding=binding, key=row.key or b"", closing=closing)
            if row.not_after is not None:
                commit.not_after.CopyFrom(time_to_pb(row.not_after))
            certificate = certificate_pb2.DecisionCertificate.FromString(row.certificate or b"")
            request = messages.CommitRequest(commands=[commit], certificates=[certificate])
            return (await stub.Commit(request, timeout=CALL_SECONDS_MAX)).answers
        case _:
            abort = leg_pb2.AbortCommand(epoch=token, binding=binding, authority=authority_to_pb(DeadlinePassed()), closing=closing)
            return (await stub.Abort(messages.AbortRequest(commands=[abort]), timeout=CALL_SECONDS_MAX)).answers


@asynccontextmanager
async def _stub(sandbox: Sandbox, participant: str) -> AsyncIterator[ParticipantServiceStub]:
    """A participant, as the coordinator reaches it."""
    async with channel(sandbox.address(participant), sandbox.tls("coordinator")) as bare:
        yield ParticipantServiceStub(bare)
