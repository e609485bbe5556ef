"""Plans saved after their steps, where nobody else changed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from coordinator.convert import stored
from coordinator.dossier import Dossier
from coordinator.model import LegState, Moved, Plan
from coordinator.store.plans import insert_gates, insert_transitions
from lockstep_kit.db import Connection
from lockstep_kit.errors import aborted
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import PlanId

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
