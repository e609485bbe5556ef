"""Plans: read with all their papers, and saved after a step. How they come is `store.accepting`'s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from coordinator.convert import stored
from coordinator.dossier import Dossier, FiledTicket, LegFile
from coordinator.model import Cause, GateRecord, LegState, Mandate, Order, Plan, Quorum, State, Ticket
from coordinator.store import operators
from lockstep_kit import leases
from lockstep_kit.certificate import Decision
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, permission_denied
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import ActorId, Digest, PlanId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.values import dataclass

#: Whether plans are still as they were known, by the database's clock.
GLANCE: Final = """
select plan.plan_id, plan.version, plan.updated_at, clock_timestamp() as read_at, coalesce(journal_progress.frozen, '') as frozen,
    (select count(*) from escalation where escalation.plan_id = plan.plan_id) as tickets
from plan left join journal_progress on journal_progress.plan_id = plan.plan_id
where plan.plan_id = any($1) order by plan.plan_id
"""

#: The same, of plans that are locked in the order of their ids until the transaction ends.
GLANCE_LOCKED: Final = f"{GLANCE}for update of plan\n"

#: Whether an owner ($2, of generation $3) holds a plan's lease that has more left than a duration ($4). One of before the last restore holds none.
HELD: Final = f"({leases.HELD} and $3 >= (select generation from installation))"

#: The same, of those whose leases their owner holds for some time yet, with the leases' epochs. The leases are shared with whoever else works for the owner,
#: and nobody takes them meanwhile. The clock may be read before others' locks are waited for; of a plan that they changed, it is read after that.
GLANCE_HELD: Final = f"""
select plan.plan_id, plan.version, plan.updated_at, clock_timestamp() as read_at, coalesce(journal_progress.frozen, '') as frozen,
    (select count(*) from escalation where escalation.plan_id = plan.plan_id) as tickets, lease.generation, lease.counter
from lease join plan on plan.plan_id = lease.resource_id left join journal_progress on journal_progress.plan_id = plan.plan_id
where lease.resource_id = any($1) and {HELD}
order by plan.plan_id for share of lease for update of plan
"""

#: Plans as they stand.
READ_PLANS: Final = "select plan.*, clock_timestamp() as read_at from plan where plan_id = any($1) order by plan_id"

#: Their legs, in plan order.
READ_LEGS: Final = "select * from plan_leg where plan_id = any($1) order by plan_id, position"

#: Their gates, in the order of signing.
READ_GATES: Final = (
    "select plan_id, actor_id, signed, signed_at from gate_signature where plan_id = any($1) order by plan_id, ordinal"
)

#: Their escalations, in the order in which they were raised.
READ_TICKETS: Final = "select * from escalation where plan_id = any($1) order by plan_id, ordinal"

#: Those among them whose journal takes nothing more.
READ_FROZEN: Final = "select plan_id, frozen from journal_progress where plan_id = any($1) and frozen <> ''"

#: The plans' keys, sealed to the service.
READ_KEYS: Final = "select plan_id, service_key_id, service_sealed from decision_key where plan_id = any($1)"

#: Constraint that a key signs a gate with a nonce once.
NONCE_KEY: Final = "gate_signature_nonce_key"


@dataclass(frozen=True, slots=True)
class Read:
    """Plans that were read, and when."""

    #: By id.
    dossiers: dict[PlanId, Dossier]
    #: The database's clock.
    now: datetime | None


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A plan's key, as it is kept."""

    #: Key that it is sealed to.
    service_key_id: str
    #: Sealed to the service.
    service_sealed: bytes
    #: Key that it is sealed to, too.
    recovery_key_id: str
    #: Sealed for recovery.
    recovery_sealed: bytes


@dataclass(frozen=True, slots=True)
class Glance:
    """What a plan is known by not to have changed."""

    #: The plan.
    plan_id: PlanId
    #: Grows with every change.
    version: int
    #: When it last changed.
    updated_at: datetime
    #: Why its journal takes nothing more, or "".
    frozen: str
    #: How many escalations it has.
    tickets: int
    #: The database's clock.
    read_at: datetime


async def glance(connection: Connection, plans: Iterable[PlanId], *, lock: bool = False) -> list[Glance]:
    """What plans are known by, in the order of their ids; locked until the transaction ends, where asked. Ids that are not known are left out."""
    return [_glance(row) for row in await connection.fetch(GLANCE_LOCKED if lock else GLANCE, sorted(set(plans)))]


async def glance_held(
    tx: Connection, plans: Iterable[PlanId], owner: str, generation: int, left: timedelta
) -> tuple[list[Glance], dict[PlanId, Epoch]]:
    """As `glance`, of plans whose leases their owner holds for longer than `left`, locked with these until the transaction ends; and the leases' epochs."""
    rows = await tx.fetch(GLANCE_HELD, sorted(set(plans)), owner, generation, left)
    return [_glance(row) for row in rows], {PlanId(row["plan_id"]): Epoch(row["generation"], row["counter"]) for row in rows}


def _glance(row: asyncpg.Record) -> Glance:
    return Glance(PlanId(row["plan_id"]), row["version"], row["updated_at"], row["frozen"], row["tickets"], row["read_at"])


async def read(connection: Connection, plans: Iterable[PlanId]) -> Read:
    """Plans with all their papers. Ids that are not known are left out."""
    rows = await connection.fetch(READ_PLANS, sorted(set(plans)))
    if not rows:
        return Read({}, None)
    found = [row["plan_id"] for row in rows]
    legs = _by_plan(await connection.fetch(READ_LEGS, found))
    gates = _by_plan(await connection.fetch(READ_GATES, found))
    tickets = _by_plan(await connection.fetch(READ_TICKETS, found))
    frozen = {row["plan_id"]: row["frozen"] for row in await connection.fetch(READ_FROZEN, found)}
    # Only what was escalated can have been unwound by operators.
    unwinds = await operators.unwinds(connection, tickets) if tickets else {}
    dossiers = {
        PlanId(row["plan_id"]): _dossier(
            row,
            legs[row["plan_id"]],
            gates[row["plan_id"]],
            tickets.get(row["plan_id"], ()),
            frozen,
            unwinds.get(row["plan_id"]),
        )
        for row in rows
    }
    return Read(dossiers, rows[0]["read_at"])


def _by_plan(rows: Sequence[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    found: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row["plan_id"]].append(row)
    return found


def _dossier(
    row: asyncpg.Record,
    legs: Sequence[asyncpg.Record],
    gates: Sequence[asyncpg.Record],
    tickets: Sequence[asyncpg.Record],
    frozen: dict[str, str],
    unwind: Mandate | None,
) -> Dossier:
    header = stored.header_of(row["header"])
    files = tuple(
        LegFile(
            stored.leg_of(each["leg"], row["header"]),
            each["participant"],
            Digest(each["lock"]),
            each["payer_signature"] or b"",
            stored.permit_of(each["permit"]),
        )
        for each in legs
    )
    filed = tuple(
        FiledTicket(
            each["escalation_id"],
            Ticket(each["reason"], each["leg_id"], each["detail"], each["raised_at"]),
            each["resolved_at"],
        )
        for each in tickets
    )
    plan = Plan(
        plan_id=header.plan_id,
        digest=Digest(row["digest"]),
        deadline=header.deadline,
        policy=header.policy,
        legs=tuple(_leg_state(each, file) for each, file in zip(legs, files, strict=True)),
        state=State(row["state"]),
        decision=Decision(row["decision"]) if row["decision"] else None,
        delegate=row["delegate"],
        decided_at=row["decided_at"],
        since=row["since"],
        transition_no=row["transition_no"],
        journal_sequence=row["journal_sequence"],
        gates=tuple(GateRecord(stored.gate_of(each["signed"]), ActorId(each["actor_id"]), each["signed_at"]) for each in gates),
        tickets=tuple(each.ticket for each in filed if each.resolved_at is None),
        forgotten=tuple(each.ticket for each in filed if each.resolved_at is not None),
        cause=Cause(row["cause"]) if row["cause"] else None,
        reason=row["reason"],
        reason_leg=row["reason_leg"],
        reason_detail=row["reason_detail"],
        outcome=PlanOutcome(row["outcome"]) if row["outcome"] else None,
        sealing=row["sealing"],
        unwound_by_policy=row["unwound_by_policy"],
        unwind_refusal=stored.outcome_of(row["unwind_refusal"]),
        quorum=Quorum(row["approvals_needed"], row["releases_needed"], row["validations_needed"]),
        unwind=unwind,
        validated_from=row["validated_from"],
        auditing_since=row["auditing_since"],
        audit=Digest(row["audit"]) if row["audit"] else None,
    )
    return Dossier(
        plan=plan,
        header=header,
        files=files,
        tickets=filed,
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        traceparent=row["traceparent"],
        frozen=frozen.get(row["plan_id"], ""),
        read_at=row["read_at"],
    )


def _leg_state(row: asyncpg.Record, file: LegFile) -> LegState:
    return LegState(
        leg_id=file.leg.leg_id,
        kind=file.leg.kind,
        depends_on=file.leg.depends_on,
        order=Order(row["last_order"]),
        ordered_at=row["ordered_at"],
        phase=Phase(row["phase"]) if row["phase"] else None,
        revision=row["revision"],
        vote=stored.vote_of(row["vote"]),
        outcome=stored.outcome_of(row["outcome"]),
        trouble=row["trouble"],
        reversed=row["reversed"],
        reversal=stored.outcome_of(row["reversal"]),
        operators_evidence=stored.operators_of(row["operators_executed"], row["operators_evidence"]),
    )


async def sealed_keys(connection: Connection, plans: Iterable[PlanId]) -> dict[PlanId, tuple[str, bytes]]:
    """The plans' keys as they are sealed to the service: id of the key that opens them, and the sealed bytes."""
    rows = await connection.fetch(READ_KEYS, sorted(set(plans)))
    return {PlanId(row["plan_id"]): (row["service_key_id"], row["service_sealed"]) for row in rows}


def nonce_reused() -> LockstepError:
    """The refusal that a violated `NONCE_KEY` is."""
    return permission_denied("GATE_NONCE_REUSED", "the key has signed with this nonce before")
