"""What a plan waits for, until when, and who can act. Pure; shown to whoever asks, never decided upon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum

from coordinator import facts
from coordinator.calls import awaited_gate
from coordinator.commands import answered
from coordinator.dossier import Dossier, barred_from, signers
from coordinator.model import Limits, State
from lockstep_kit.registry import Registry, Role
from lockstep_kit.sod import able
from lockstep_kit.statements import Gate
from lockstep_kit.values import dataclass


class WaitingKind(StrEnum):
    """What is waited for."""

    EXECUTE = "EXECUTE"
    GATE = "GATE"
    PARTICIPANT = "PARTICIPANT"
    OPERATORS = "OPERATORS"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that a plan waits for."""

    #: What.
    kind: WaitingKind
    #: Who can act.
    who: tuple[str, ...]
    #: GATE: which.
    gate: Gate | None = None
    #: GATE: how many persons have still to sign.
    signatures_missing: int = 0
    #: PARTICIPANT: about which leg.
    leg_id: str = ""
    #: Until when; None: no limit.
    until: datetime | None = None


def waiting(dossier: Dossier, registry: Registry, limits: Limits) -> tuple[Waiting, ...]:
    """Everything that the plan waits for now."""
    return tuple(_waiting(dossier, registry, limits))


def _waiting(dossier: Dossier, registry: Registry, limits: Limits) -> Iterator[Waiting]:
    plan = dossier.plan
    if plan.state is State.CLOSED:
        return
    until = plan.deadline if plan.state in facts.UNDECIDED else None
    if plan.state is State.DRAFT:
        yield Waiting(WaitingKind.EXECUTE, ("client",), until=until)
    now = dossier.read_at or dossier.updated_at
    gate = awaited_gate(plan, now)
    if gate is not None:
        signed = facts.standing(plan, gate, now)
        barred = barred_from(plan, gate, registry.matrices.get(dossier.header.sod_version)) | {each.actor for each in signed}
        who = tuple(each.actor_id for each in able(registry, dossier.scope, gate, barred))
        missing = facts.needed(plan, gate) - len(signed)
        overdue = plan.since + limits.validate_max if gate is Gate.VALIDATE and plan.since else until
        yield Waiting(WaitingKind.GATE, who, gate=gate, signatures_missing=missing, until=overdue)
    for file in dossier.files:
        leg = facts.leg(plan, file.leg.leg_id)
        if not answered(leg):
            yield Waiting(WaitingKind.PARTICIPANT, (file.participant,), leg_id=leg.leg_id, until=until)
    if plan.state is State.PARTIALLY_EXECUTED or plan.tickets:
        barred = signers(plan)
        who = tuple(each.actor_id for each in registry.with_role({Role.OPERATOR}) if each.actor_id not in barred)
        yield Waiting(WaitingKind.OPERATORS, who)
