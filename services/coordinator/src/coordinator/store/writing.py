"""What a transaction does to its plans, written by one call: the database's function `plan_write` writes each part by a statement of its own, in one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, Final

from coordinator.commands import Command
from coordinator.convert import stored
from coordinator.dossier import Dossier
from coordinator.model import GateRecord, LegState, Moved, Order, Plan
from coordinator.payloads import JournalEvent
from coordinator.store.outboxes import behind_journal
from lockstep_kit.db import Connection
from lockstep_kit.errors import aborted
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.plan import LegKind
from lockstep_kit.values import dataclass

#: The parts in the order in which they are written, each with its columns: how far participants' outcome logs were read; plans that are still at the
#: version that was read; what changed of legs; gates; transitions; events for the journal; commands whose repeating ends, but for one that is named;
#: commands that are given, or given anew; changes for watchers, whose counter is locked last.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "heard": ("participant", "incarnation", "sequence"),
    "saved": (
        *(
            "plan_id",
            "version",
            "state",
            "decision",
            "delegate",
            "decided_at",
            "since",
            "transition_no",
            "journal_sequence",
            "cause",
        ),
        *("reason", "reason_leg", "reason_detail", "outcome", "sealing", "unwound_by_policy", "generation", "counter", "due_at"),
        *("validated_from", "auditing_since", "audit", "unwind_refusal"),
    ),
    "stepped": (
        *("plan_id", "leg_id", "last_order", "ordered_at", "phase", "revision", "vote", "outcome", "trouble", "reversed"),
        *("operators_executed", "operators_evidence", "reversal"),
    ),
    "signed": ("plan_id", "ordinal", "gate", "verdict", "actor_id", "key_id", "nonce", "signed", "signed_at"),
    "moved": ("plan_id", "transition_no", "left_state", "entered_state", "decision", "cause", "journal_sequence"),
    "recorded": ("plan_id", "sequence", "type", "actor", "actor_role", "payload", "traceparent"),
    "ended": ("plan_id", "leg_id", "kept"),
    "given": (
        *("plan_id", "leg_id", "command", "participant", "behind_journal", "not_after", "closing", "authority", "traceparent"),
        *("attempts", "pause"),
    ),
    "told": ("plan_id", "event"),
}

_NAMES: Final = tuple(f"{part}_{column}" for part, columns in PARTS.items() for column in columns)

#: Writes all parts as of a moment; false where a plan is at another version, and then nothing must be committed.
WRITE: Final = f"select plan_write(moment => $1, {', '.join(f'{name} => ${place}' for place, name in enumerate(_NAMES, start=2))})"


@dataclass(frozen=True, slots=True)
class Stepped:
    """A plan before and after its steps in one transaction."""

    #: As it was read.
    before: Dossier
    #: As it is now.
    after: Plan
    #: Lease of the writer.
    epoch: Epoch
    #: When it must be given a Tick at the latest.
    due_at: datetime | None


@dataclass(slots=True)
class Writing:
    """What is to be written, by parts; each is a list of rows."""

    _rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    _heard: dict[str, tuple[str, int]] = field(default_factory=dict)

    def heard(self, participant: str, incarnation: str, sequence: int) -> None:
        """A participant's outcome log was read to there; what is said last holds."""
        self._heard[participant] = (incarnation, sequence)

    def stepped(self, each: Stepped) -> None:
        """A plan after its steps, with what changed of its legs and the gates that it has beyond those before."""
        self._add("saved", _saved(each))
        before, after = each.before.plan, each.after
        for old, leg in zip(before.legs, after.legs, strict=True):
            if old is not leg and old != leg:
                self._add("stepped", _stepped(after.plan_id, leg))
        self.signed(after, len(before.gates))

    def signed(self, plan: Plan, known: int) -> None:
        """The gates that a plan has beyond the first so many."""
        for ordinal, record in enumerate(plan.gates[known:], start=known + 1):
            self._add("signed", _signed(plan.plan_id, ordinal, record))

    def moved(self, plan_id: PlanId, move: Moved) -> None:
        """A transition."""
        self._add("moved", _moved(plan_id, move))

    def recorded(self, plan_id: PlanId, event: JournalEvent, traceparent: str | None) -> None:
        """An event for the journal, with the trace it belongs to. A plan's come in their order."""
        self._add(
            "recorded", (plan_id, event.sequence, event.type.value, event.actor, event.actor_role, event.payload, traceparent)
        )

    def ended(self, plan_id: PlanId, leg_id: LegId, kept: Order) -> None:
        """The repeating of a leg's commands ends, but for the one named; NONE ends all."""
        self._add("ended", (plan_id, leg_id, kept.value))

    def given(
        self, command: Command, participant: str, kind: LegKind, traceparent: str | None, repeated_after: timedelta | None
    ) -> None:
        """A command for the outbox, with participant, kind of leg and the trace it belongs to.

        One that is being sent is noted so, and `repeated_after` a while unless it is answered; with None it is due at once.
        """
        self._add(
            "given",
            (
                command.plan_id,
                command.leg_id,
                command.order.value,
                participant,
                behind_journal(command, kind),
                command.not_after,
                stored.closing_octets(command.closing),
                stored.authority_octets(command.authority),
                traceparent,
                int(repeated_after is not None),
                repeated_after or timedelta(),
            ),
        )

    def told(self, plan_id: PlanId, events: Sequence[bytes]) -> None:
        """Changes of a plan, for watchers."""
        for event in events:
            self._add("told", (plan_id, event))

    async def write(self, tx: Connection, now: datetime | None) -> None:
        """Write it, and have nothing to write any more. With changes for watchers it is the last statement of a transaction: others wait for its commit.

        `now` may be left out where nothing is written about plans.

        Raises:
            LockstepError: PLAN_CHANGED; another transaction has changed one of the plans since it was read. Nothing must be committed.
            asyncpg.UniqueViolationError: `plans.NONCE_KEY`; a key has signed with a nonce before.
        """
        rows, self._rows = self._rows, {}
        if self._heard:
            rows["heard"] = [(participant, *place) for participant, place in self._heard.items()]
            self._heard = {}
        if not rows:
            return
        lists: list[Sequence[Any] | None] = []
        for part, columns in PARTS.items():
            lists.extend(map(_column, zip(*rows[part], strict=True)) if part in rows else (None,) * len(columns))
        if not await tx.fetchval(WRITE, now, *lists):
            raise aborted("PLAN_CHANGED", "the plan has changed since it was read")

    def _add(self, part: str, row: tuple[Any, ...]) -> None:
        self._rows.setdefault(part, []).append(row)


def _column(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A column's values; none of one that is null throughout, which says the same and takes the driver no look at each."""
    return None if values[0] is None and values.count(None) == len(values) else values


def _saved(step: Stepped) -> tuple[Any, ...]:
    plan = step.after
    return (
        plan.plan_id,
        step.before.version,
        plan.state.value,
        plan.decision.value if plan.decision else None,
        plan.delegate,
        plan.decided_at,
        plan.since,
        plan.transition_no,
        plan.journal_sequence,
        plan.cause.value if plan.cause else None,
        plan.reason,
        plan.reason_leg,
        plan.reason_detail,
        plan.outcome.value if plan.outcome else None,
        plan.sealing,
        plan.unwound_by_policy,
        step.epoch.generation,
        step.epoch.counter,
        step.due_at,
        plan.validated_from,
        plan.auditing_since,
        plan.audit,
        stored.outcome_octets(plan.unwind_refusal),
    )


def _stepped(plan_id: PlanId, leg: LegState) -> tuple[Any, ...]:
    return (
        plan_id,
        leg.leg_id,
        leg.order.value,
        leg.ordered_at,
        leg.phase.value if leg.phase else None,
        leg.revision,
        stored.vote_octets(leg.vote),
        stored.outcome_octets(leg.outcome),
        leg.trouble,
        leg.reversed,
        leg.operators_evidence.executed if leg.operators_evidence else None,
        stored.operators_octets(leg.operators_evidence),
        stored.outcome_octets(leg.reversal),
    )


def _signed(plan_id: PlanId, ordinal: int, record: GateRecord) -> tuple[Any, ...]:
    statement, key_id = record.signed.statement, record.signed.signature.key_id
    return (
        *(plan_id, ordinal, statement.gate.value, statement.verdict.value, record.actor, key_id, statement.nonce),
        *(stored.gate_octets(record.signed), record.at),
    )


def _moved(plan_id: PlanId, move: Moved) -> tuple[Any, ...]:
    left, decision = move.left.value if move.left else None, move.decision.value if move.decision else None
    return plan_id, move.transition_no, left, move.entered.value, decision, move.cause.value, move.journal_sequence
