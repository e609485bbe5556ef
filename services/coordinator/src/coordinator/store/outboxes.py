"""What is still to be sent: commands to participants, events to the journal, changes to watchers; and what was heard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from coordinator.commands import Command
from coordinator.convert import stored
from coordinator.model import EventType, Order
from coordinator.payloads import JournalEvent
from coordinator.store.plans import HELD
from lockstep_kit.certificate import AbortAuthority
from lockstep_kit.db import Connection
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.moments import passed
from lockstep_kit.plan import LegKind
from lockstep_kit.reversals import ReverseAuthority
from lockstep_kit.values import dataclass

#: Channel that is notified when watchers have something to read.
EVENT_CHANNEL: Final = "plan_event"

#: Ends the repeating of commands whose answers are known, from these reports or from later ones. Like everything that changes several commands, it locks them
#: in the order of their keys.
END_SHOWN: Final = """
with locked as (
    select command.plan_id, command.leg_id, command.command from leg_command as command
    join unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) as shown (plan_id, leg_id, command, phase, revision)
        on command.plan_id = shown.plan_id and command.leg_id = shown.leg_id and command.command = shown.command
    join plan_leg as leg
        on leg.plan_id = shown.plan_id and leg.leg_id = shown.leg_id and leg.phase = shown.phase and leg.revision >= shown.revision
    where not command.answered order by command.plan_id, command.leg_id, command.command for update of command)
update leg_command set answered = true from locked
where leg_command.plan_id = locked.plan_id and leg_command.leg_id = locked.leg_id and leg_command.command = locked.command
"""

#: Whether a report is no news, and says otherwise than what is known: its participant has come as far on another way since it was put back.
SHOWN_OTHERWISE: Final = """
select exists (
    select from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as shown (plan_id, leg_id, phase, revision)
    join plan_leg as leg on leg.plan_id = shown.plan_id and leg.leg_id = shown.leg_id
    where leg.phase <> shown.phase and leg.revision >= shown.revision)
"""

#: Whether a command is due. One that was given up never is.
_DUE: Final = passed("command.due_at")

#: Plans of whose events the journal does not have all. They are read first, by the index that holds them alone: how many they are Postgres can only guess, and
#: where it takes them for a share of all plans it goes through all plans, or through all leases.
_BEHIND: Final = "array(select plan_id from journal_progress where appended < recorded and frozen = '')"

#: What stands for the journal among those that something is due to.
JOURNAL: Final = ""

#: Participants that commands of this owner are due to, and `JOURNAL` where it does not have all events of its plans.
DUE: Final = f"""
select distinct command.participant from leg_command as command
join lease on lease.resource_id = command.plan_id and lease.owner = $1
left join journal_progress as journal on command.behind_journal and journal.plan_id = command.plan_id
where not command.answered and {_DUE} and (not command.behind_journal or journal.appended >= journal.recorded)
union all
select '{JOURNAL}' where exists (select from lease where owner = $1 and resource_id = any({_BEHIND}))
"""

#: Plans of this owner with commands to a participant that are due; closing the journal waits for what is before it. Of each whether its lease is held for
#: longer than a duration yet.
DUE_PLANS: Final = f"""
select distinct due.plan_id, due.held from (
    select command.plan_id, {HELD} as held from leg_command as command
    join lease on lease.resource_id = command.plan_id and lease.owner = $2
    left join journal_progress as journal on command.behind_journal and journal.plan_id = command.plan_id
    where command.participant = $1 and not command.answered and {_DUE}
      and (not command.behind_journal or journal.appended >= journal.recorded)
    order by command.due_at limit $5) as due
"""

#: Those commands, locked in the order of their keys, with their plans' epochs. The leases are shared with whoever else works for the owner.
LOCK_DUE: Final = f"""
select command.*, lease.generation, lease.counter from leg_command as command
join lease on lease.resource_id = command.plan_id and {HELD}
left join journal_progress as journal on command.behind_journal and journal.plan_id = command.plan_id
where command.participant = $1 and command.plan_id = any($5) and not command.answered and {_DUE}
  and (not command.behind_journal or journal.appended >= journal.recorded)
order by command.plan_id, command.leg_id, command.command limit $6 for share of lease for update of command
"""

#: Notes that commands are being sent, and when each is repeated unless it is answered.
SENT: Final = """
update leg_command set attempts = leg_command.attempts + 1, due_at = clock_timestamp() + sent.delay
from unnest($1::text[], $2::text[], $3::text[], $4::interval[]) as sent (plan_id, leg_id, command, delay)
where leg_command.plan_id = sent.plan_id and leg_command.leg_id = sent.leg_id and leg_command.command = sent.command
"""

#: Notes that commands were rejected; how often by now.
REJECTED: Final = """
with locked as (
    select command.plan_id, command.leg_id, command.command, told.reason from leg_command as command
    join unnest($1::text[], $2::text[], $3::text[], $4::text[]) as told (plan_id, leg_id, command, reason) using (plan_id, leg_id, command)
    order by command.plan_id, command.leg_id, command.command for update of command)
update leg_command set rejections = rejections + 1, last_rejection = locked.reason from locked
where leg_command.plan_id = locked.plan_id and leg_command.leg_id = locked.leg_id and leg_command.command = locked.command
returning leg_command.plan_id, leg_command.leg_id, leg_command.command, leg_command.rejections
"""

#: Stops Commits that were never sent.
WITHHOLD: Final = """
update leg_command set answered = true
where plan_id = $1 and command = 'COMMIT' and attempts = 0 and not answered returning leg_id
"""

#: Makes what is not answered due now, but for what was given up.
HASTEN: Final = """
update leg_command set due_at = clock_timestamp()
where (plan_id, leg_id, command) in (
    select plan_id, leg_id, command from leg_command where plan_id = any($1) and not answered and due_at < 'infinity'
    order by plan_id, leg_id, command for update)
"""

#: Makes due now what one participant did not answer and is only to be repeated later, but for what was given up.
HASTEN_PARTICIPANT: Final = """
update leg_command set due_at = clock_timestamp()
where (plan_id, leg_id, command) in (
    select plan_id, leg_id, command from leg_command
    where participant = $1 and not answered and due_at > clock_timestamp() and due_at < 'infinity'
    order by plan_id, leg_id, command for update)
"""

#: Legs of plans whose commands are not answered.
UNANSWERED: Final = """
select plan_id, leg_id, participant from leg_command where plan_id = any($1) and not answered order by plan_id, leg_id
"""

#: Legs of plans about which their participants can still be told something.
UNFINISHED: Final = """
select plan_id, leg_id, participant from plan_leg
where plan_id = any($1) and last_order <> 'NONE' and (phase is null or phase not in ('COMMITTED', 'RELEASED', 'REVERSED'))
order by plan_id, leg_id
"""

#: Events of this owner's plans that the journal does not have yet, in order.
PENDING_EVENTS: Final = f"""
select event.*, lease.generation, lease.counter from journal_progress as progress
join lease on lease.resource_id = progress.plan_id and lease.owner = $1
join journal_event as event on event.plan_id = progress.plan_id and event.sequence > progress.appended
where progress.plan_id = any({_BEHIND})
order by event.plan_id, event.sequence limit $2
"""

#: Events of one plan from a place on.
EVENTS_FROM: Final = """
select event.*, lease.generation, lease.counter from journal_event as event join lease on lease.resource_id = event.plan_id
where event.plan_id = $1 and event.sequence >= $2 order by event.sequence limit $3
"""

#: Notes how far the journal has plans' events.
APPENDED: Final = """
with locked as (
    select plan_id from journal_progress where plan_id = any($1) order by plan_id for update)
update journal_progress set appended = greatest(journal_progress.appended, done.sequence)
from locked join unnest($1::text[], $2::bigint[]) as done (plan_id, sequence) using (plan_id)
where journal_progress.plan_id = locked.plan_id
"""

#: Stops a plan's events for ever: the journal has others.
FREEZE: Final = "update journal_progress set frozen = $2 where plan_id = $1 and frozen = ''"

#: Where a participant's outcome log was read to.
READ_CURSOR: Final = "select incarnation, sequence from participant_cursor where participant = $1"


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that the journal does not have yet."""

    #: Plan of the chain.
    plan_id: PlanId
    #: The event.
    event: JournalEvent
    #: When it happened.
    event_time: datetime
    #: W3C trace context of its cause.
    traceparent: str | None
    #: Epoch of its plan when it was read.
    epoch: Epoch


def behind_journal(command: Command, kind: LegKind) -> bool:
    """Whether a command waits until the journal has everything that is before it."""
    return kind is LegKind.JOURNAL and command.order is not Order.PREPARE


async def due(connection: Connection, owner: str) -> frozenset[str]:
    """Participants that commands of this owner are due to, and `JOURNAL` where it does not have all events of its plans."""
    return frozenset(row["participant"] for row in await connection.fetch(DUE, owner))


async def end_shown(connection: Connection, shown: Sequence[tuple[Command, Phase, int]]) -> bool:
    """End the repeating of commands whose answers, reports of these phases and revisions, are known; whether any says otherwise than what is."""
    plans, legs = [command.plan_id for command, _, _ in shown], [command.leg_id for command, _, _ in shown]
    phases, revisions = [phase.value for _, phase, _ in shown], [revision for _, _, revision in shown]
    await connection.execute(END_SHOWN, plans, legs, [command.order.value for command, _, _ in shown], phases, revisions)
    return bool(await connection.fetchval(SHOWN_OTHERWISE, plans, legs, phases, revisions))


async def due_plans(
    connection: Connection, participant: str, owner: str, generation: int, left: timedelta, limit: int
) -> dict[PlanId, bool]:
    """Plans of this owner with commands to a participant that are due, each with whether its lease is held for longer than `left`."""
    rows = await connection.fetch(DUE_PLANS, participant, owner, generation, left, limit)
    return {PlanId(row["plan_id"]): row["held"] for row in rows}


async def lock_due(
    tx: Connection, participant: str, owner: str, generation: int, left: timedelta, plans: Iterable[PlanId], limit: int
) -> list[tuple[Command, Epoch]]:
    """Due commands to a participant of those among plans whose leases are held for longer than `left`, locked, with the leases' epochs."""
    rows = await tx.fetch(LOCK_DUE, participant, owner, generation, left, sorted(plans), limit)
    return [(_command(row), Epoch(row["generation"], row["counter"])) for row in rows]


def _command(row: asyncpg.Record) -> Command:
    return Command(
        plan_id=PlanId(row["plan_id"]),
        leg_id=LegId(row["leg_id"]),
        order=Order(row["command"]),
        not_after=row["not_after"],
        closing=stored.closing_of(row["closing"]),
        authority=_authority_of(row),
        attempts=row["attempts"],
        traceparent=row["traceparent"],
    )


def _authority_of(row: asyncpg.Record) -> AbortAuthority | ReverseAuthority | None:
    if Order(row["command"]) is Order.REVERSE:
        return stored.reverse_authority_of(row["authority"])
    return stored.authority_of(row["authority"])


async def sent(tx: Connection, commands: Sequence[Command], delays: Sequence[timedelta]) -> None:
    """Note that commands are being sent, and when each is repeated."""
    await tx.execute(
        SENT,
        [each.plan_id for each in commands],
        [each.leg_id for each in commands],
        [each.order.value for each in commands],
        list(delays),
    )


async def rejected(connection: Connection, told: Sequence[tuple[Command, str]]) -> dict[tuple[PlanId, LegId], int]:
    """Note that commands were rejected, with the reasons; how often each was by now."""
    rows = await connection.fetch(
        REJECTED,
        [each.plan_id for each, _ in told],
        [each.leg_id for each, _ in told],
        [each.order.value for each, _ in told],
        [reason for _, reason in told],
    )
    return {(PlanId(row["plan_id"]), LegId(row["leg_id"])): row["rejections"] for row in rows}


async def withhold(tx: Connection, plan_id: PlanId) -> tuple[LegId, ...]:
    """Stop a plan's Commits that were never sent; the legs concerned."""
    return tuple(LegId(row["leg_id"]) for row in await tx.fetch(WITHHOLD, plan_id))


async def hasten(tx: Connection, plans: Sequence[PlanId]) -> list[tuple[PlanId, LegId, str]]:
    """Make what is not answered due now; the legs concerned, with their participants."""
    await tx.execute(HASTEN, list(plans))
    rows = await tx.fetch(UNANSWERED, list(plans))
    return [(PlanId(row["plan_id"]), LegId(row["leg_id"]), row["participant"]) for row in rows]


async def hasten_participant(connection: Connection, participant: str) -> None:
    """Make due now what a participant that was away did not answer."""
    await connection.execute(HASTEN_PARTICIPANT, participant)


async def unfinished(connection: Connection, plans: Sequence[PlanId]) -> list[tuple[PlanId, LegId, str]]:
    """Legs of plans about which their participants can still be told something, with those."""
    rows = await connection.fetch(UNFINISHED, list(plans))
    return [(PlanId(row["plan_id"]), LegId(row["leg_id"]), row["participant"]) for row in rows]


async def cursor(connection: Connection, participant: str) -> tuple[str, int] | None:
    """Incarnation and sequence that a participant's outcome log was read to."""
    row = await connection.fetchrow(READ_CURSOR, participant)
    return None if row is None else (row["incarnation"], row["sequence"])


def _pending(row: asyncpg.Record) -> PendingEvent:
    event = JournalEvent(row["sequence"], EventType(row["type"]), row["actor"], row["actor_role"], row["payload"])
    epoch = Epoch(row["generation"], row["counter"])
    return PendingEvent(PlanId(row["plan_id"]), event, row["event_time"], row["traceparent"], epoch)


async def pending_events(connection: Connection, owner: str, limit: int) -> list[PendingEvent]:
    """Events of this owner's plans that the journal does not have yet, in order."""
    return [_pending(row) for row in await connection.fetch(PENDING_EVENTS, owner, limit)]


async def events_from(connection: Connection, plan_id: PlanId, sequence: int, limit: int) -> list[PendingEvent]:
    """Events of one plan from a place on, whether the journal has them or not."""
    return [_pending(row) for row in await connection.fetch(EVENTS_FROM, plan_id, sequence, limit)]


async def appended(connection: Connection, done: Mapping[PlanId, int]) -> None:
    """Note how far the journal has plans' events."""
    if done:
        await connection.execute(APPENDED, list(done), list(done.values()))


async def freeze(connection: Connection, plan_id: PlanId, why: str) -> None:
    """Stop a plan's events for ever."""
    await connection.execute(FREEZE, plan_id, why)
