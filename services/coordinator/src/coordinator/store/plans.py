"""Plans: read with all their papers, and saved after a step. How they come is `store.accepting`'s."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from coordinator.convert import stored
from coordinator.dossier import Dossier, FiledTicket, LegFile
from coordinator.model import Cause, GateRecord, LegState, Mandate, Moved, Order, Plan, Quorum, State, Ticket
from coordinator.store import operators
from lockstep_kit.certificate import Decision
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, aborted, permission_denied
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import ActorId, Digest, PlanId
from lockstep_kit.participant.ports import PlanOutcome

#: Plans, locked in the order of their ids until the transaction ends, with the database's clock.
LOCK_PLANS: Final = """
select plan.*, clock_timestamp() as read_at from plan where plan_id = any($1) order by plan_id for update
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

#: Saves plans that are still at the version that was read.
SAVE_PLANS: Final = """
update plan set state = new.state, decision = new.decision, delegate = new.delegate, decided_at = new.decided_at, since = new.since,
    transition_no = new.transition_no, journal_sequence = new.journal_sequence, cause = new.cause, reason = new.reason,
    reason_leg = new.reason_leg, reason_detail = new.reason_detail, outcome = new.outcome, sealing = new.sealing,
    unwound_by_policy = new.unwound_by_policy, validated_from = new.validated_from, auditing_since = new.auditing_since,
    audit = new.audit, unwind_refusal = new.unwind_refusal, version = plan.version + 1, epoch_generation = new.generation,
    epoch_counter = new.counter, due_at = new.due_at, updated_at = new.updated_at
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::integer[],
    $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::boolean[], $16::boolean[], $17::bigint[],
    $18::bigint[], $19::timestamptz[], $20::timestamptz[], $21::integer[], $22::timestamptz[], $23::bytea[],
    $24::bytea[])
    as new (plan_id, version, state, decision, delegate, decided_at, since, transition_no, journal_sequence, cause, reason,
    reason_leg, reason_detail, outcome, sealing, unwound_by_policy, generation, counter, due_at, updated_at, validated_from,
    auditing_since, audit, unwind_refusal)
where plan.plan_id = new.plan_id and plan.version = new.version returning plan.plan_id
"""

#: Saves what changed of legs.
SAVE_LEGS: Final = """
update plan_leg set last_order = new.last_order, ordered_at = new.ordered_at, phase = new.phase, revision = new.revision,
    vote = new.vote, outcome = new.outcome, trouble = new.trouble, reversed = new.reversed, reversal = new.reversal,
    operators_executed = new.operators_executed, operators_evidence = new.operators_evidence
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::bigint[], $7::bytea[], $8::bytea[], $9::text[],
    $10::boolean[], $11::boolean[], $12::bytea[], $13::bytea[])
    as new (plan_id, leg_id, last_order, ordered_at, phase, revision, vote, outcome, trouble, reversed, operators_executed,
    operators_evidence, reversal)
where plan_leg.plan_id = new.plan_id and plan_leg.leg_id = new.leg_id
"""

#: Adds signed gates.
INSERT_GATES: Final = """
insert into gate_signature (plan_id, ordinal, gate, verdict, actor_id, key_id, nonce, signed, signed_at)
select * from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
    $9::timestamptz[])
"""

#: Adds transitions, in order.
INSERT_TRANSITIONS: Final = """
insert into plan_transition (plan_id, transition_no, left_state, entered_state, decision, cause, journal_sequence, moved_at)
select * from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[])
    as new (plan_id, transition_no, left_state, entered_state, decision, cause, journal_sequence, moved_at)
order by plan_id, transition_no
"""

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


async def read(connection: Connection, plans: Iterable[PlanId], *, lock: bool = False) -> Read:
    """Plans with all their papers; locked until the transaction ends, where asked. Ids that are not known are left out."""
    names = sorted(set(plans))
    rows = await connection.fetch(LOCK_PLANS if lock else READ_PLANS, names)
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


@dataclass(frozen=True, slots=True)
class Stepped:
    """A plan before and after its steps in one transaction."""

    #: As it was read.
    before: Dossier
    #: As it is now.
    after: Plan
    #: Its transitions.
    moves: tuple[Moved, ...]
    #: Lease of the writer.
    epoch: Epoch
    #: When it must be given a Tick at the latest.
    due_at: datetime | None


async def save(tx: Connection, steps: Sequence[Stepped], now: datetime) -> None:
    """Save plans after their steps: state, legs, gates, transitions.

    Raises:
        LockstepError: PLAN_CHANGED; another transaction has changed one of them since it was read. Nothing must be committed.
    """
    plans = [each.after for each in steps]
    saved = await tx.fetch(SAVE_PLANS, *_plan_columns(steps, plans, now))
    if len(saved) != len(steps):
        raise aborted("PLAN_CHANGED", "the plan has changed since it was read")
    legs = [
        (each.after.plan_id, new)
        for each in steps
        for old, new in zip(each.before.plan.legs, each.after.legs, strict=True)
        if old != new
    ]
    if legs:
        await tx.execute(SAVE_LEGS, *_leg_columns(legs))
    await insert_gates(tx, [(each.after, len(each.before.plan.gates)) for each in steps])
    await insert_transitions(tx, [(each.after.plan_id, move) for each in steps for move in each.moves], now)


def _plan_columns(steps: Sequence[Stepped], plans: Sequence[Plan], now: datetime) -> list[list[Any]]:
    return [
        [each.plan_id for each in plans],
        [each.before.version for each in steps],
        [each.state.value for each in plans],
        [each.decision.value if each.decision else None for each in plans],
        [each.delegate for each in plans],
        [each.decided_at for each in plans],
        [each.since for each in plans],
        [each.transition_no for each in plans],
        [each.journal_sequence for each in plans],
        [each.cause.value if each.cause else None for each in plans],
        [each.reason for each in plans],
        [each.reason_leg for each in plans],
        [each.reason_detail for each in plans],
        [each.outcome.value if each.outcome else None for each in plans],
        [each.sealing for each in plans],
        [each.unwound_by_policy for each in plans],
        [each.epoch.generation for each in steps],
        [each.epoch.counter for each in steps],
        [each.due_at for each in steps],
        [now for _ in steps],
        [each.validated_from for each in plans],
        [each.auditing_since for each in plans],
        [each.audit for each in plans],
        [stored.outcome_octets(each.unwind_refusal) for each in plans],
    ]


def _leg_columns(legs: Sequence[tuple[PlanId, LegState]]) -> list[list[Any]]:
    return [
        [plan_id for plan_id, _ in legs],
        [leg.leg_id for _, leg in legs],
        [leg.order.value for _, leg in legs],
        [leg.ordered_at for _, leg in legs],
        [leg.phase.value if leg.phase else None for _, leg in legs],
        [leg.revision for _, leg in legs],
        [stored.vote_octets(leg.vote) for _, leg in legs],
        [stored.outcome_octets(leg.outcome) for _, leg in legs],
        [leg.trouble for _, leg in legs],
        [leg.reversed for _, leg in legs],
        [leg.operators_evidence.executed if leg.operators_evidence else None for _, leg in legs],
        [stored.operators_octets(leg.operators_evidence) for _, leg in legs],
        [stored.outcome_octets(leg.reversal) for _, leg in legs],
    ]


async def insert_gates(tx: Connection, plans: Sequence[tuple[Plan, int]]) -> None:
    """Add the gates that plans have beyond the first so many.

    Raises:
        asyncpg.UniqueViolationError: NONCE_KEY; the key has signed with this nonce before.
    """
    new = [(plan.plan_id, place + 1, plan.gates[place]) for plan, known in plans for place in range(known, len(plan.gates))]
    if not new:
        return
    await tx.execute(
        INSERT_GATES,
        [plan_id for plan_id, _, _ in new],
        [ordinal for _, ordinal, _ in new],
        [record.signed.statement.gate.value for _, _, record in new],
        [record.signed.statement.verdict.value for _, _, record in new],
        [record.actor for _, _, record in new],
        [record.signed.signature.key_id for _, _, record in new],
        [record.signed.statement.nonce for _, _, record in new],
        [stored.gate_octets(record.signed) for _, _, record in new],
        [record.at for _, _, record in new],
    )


async def insert_transitions(tx: Connection, moves: Sequence[tuple[PlanId, Moved]], now: datetime) -> None:
    """Add transitions."""
    if not moves:
        return
    await tx.execute(
        INSERT_TRANSITIONS,
        [plan_id for plan_id, _ in moves],
        [move.transition_no for _, move in moves],
        [move.left.value if move.left else None for _, move in moves],
        [move.entered.value for _, move in moves],
        [move.decision.value if move.decision else None for _, move in moves],
        [move.cause.value for _, move in moves],
        [move.journal_sequence for _, move in moves],
        [now for _ in moves],
    )


def nonce_reused() -> LockstepError:
    """The refusal that a violated `NONCE_KEY` is."""
    return permission_denied("GATE_NONCE_REUSED", "the key has signed with this nonce before")
