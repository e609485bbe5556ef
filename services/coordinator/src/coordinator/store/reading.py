"""What clients and background loops ask: lists, transitions, changes, what is due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from coordinator.access import Belonging, Client
from coordinator.audit import Transition
from coordinator.convert import stored
from coordinator.model import Cause, Moved, State
from coordinator.store import kept_news
from lockstep_kit import leases
from lockstep_kit.certificate import Decision
from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.values import dataclass

#: Ids of plans before a place, newest first.
PAGE: Final = """
select plan_id, seq from plan
where ($1::bigint is null or seq < $1) and (cardinality($2::text[]) = 0 or state = any($2)) order by seq desc limit $3
"""

#: Ids of the plans of some parties, or brought by a client, before a place, newest first. What others have is neither read nor walked past.
PAGE_OF: Final = """
select plan_id, seq from (
    select found.plan_id, found.seq from unnest($4::text[]) as mine (party_id) cross join lateral (
        select plan.plan_id, plan.seq from plan_party join plan using (plan_id)
        where plan_party.party_id = mine.party_id and ($1::bigint is null or plan_party.seq < $1)
          and (cardinality($2::text[]) = 0 or plan.state = any($2))
        order by plan_party.seq desc limit $3) as found
    union
    (select plan_id, seq from plan
     where created_by = $5 and created_by <> '' and ($1::bigint is null or seq < $1)
       and (cardinality($2::text[]) = 0 or state = any($2))
     order by seq desc limit $3)
) as page order by seq desc limit $3
"""

#: Place of a plan in the order of creation, with what says whose it is.
PLACE: Final = "select seq, header, created_by from plan where plan_id = $1"

#: What says whose plans are.
BELONGINGS: Final = "select plan_id, header, created_by from plan where plan_id = any($1)"

#: Transitions of a plan behind a place.
TRANSITIONS: Final = "select * from plan_transition where plan_id = $1 and transition_no > $2 order by transition_no limit $3"

#: Whether there is such a plan.
EXISTS: Final = "select exists (select from plan where plan_id = $1)"

#: Those among ids that are plans'.
KNOWN: Final = "select plan_id from plan where plan_id = any($1)"

#: Trace contexts of the calls that created plans.
TRACEPARENTS: Final = "select plan_id, traceparent from plan where plan_id = any($1)"

#: How many changes a plan has, and which log they are in.
PLAN_EVENT_HEAD: Final = """
select (select count(*) from plan_event where plan_id = $1) as number, incarnation from plan_event_counter
"""

#: Changes of a plan behind a place, numbered within the plan: the numbers of the log would tell how much others do.
EVENTS: Final = """
select number, event from (
    select row_number() over (order by sequence) as number, event from plan_event where plan_id = $1) as own
where number > $2 order by number limit $3
"""

#: State of a plan, and the database's clock.
STATE: Final = "select state, clock_timestamp() as clock from plan where plan_id = $1"

#: Plans of this owner, or of nobody any more, that time matters to now.
_DUE: Final = f"""from plan left join lease on lease.resource_id = plan.plan_id
where plan.due_at <= clock_timestamp() and (lease.owner = $1 or {leases.FREE})"""
DUE: Final = f"""
select plan.plan_id {_DUE}
order by plan.due_at limit $2
"""

#: Plans that something is to be done about, closed ones too, where a participant is to be told again. What was given up waits for operators.
_OWED: Final = """(
    select plan_id from plan where state in ('INITIATED', 'PRECONDITIONS_PENDING')
    union select plan_id from leg_command where not answered and due_at < 'infinity'
    union select plan_id from journal_progress where appended < recorded and frozen = '')"""

#: Those of them whose lease another owner let run out. Each lease is looked up by itself: how many are behind their journal Postgres can only guess, and for
#: a share of all plans it would read the leases of all.
_ORPHANED: Final = f"""from {_OWED} as owed
left join lateral (select owner, expires_at from lease where resource_id = owed.plan_id offset 0) as lease on true
where lease.owner is null or (lease.owner <> $1 and {leases.FREE})"""
ORPHANED: Final = f"""
select owed.plan_id {_ORPHANED}
order by owed.plan_id limit $2
"""

#: Leases of those that this owner had last and has not given back, once a quarter of their time is over; looked up one by one, too.
_ENDING: Final = f"""from lease
    where owner = $1 and generation = $2 and expires_at > '-infinity' and expires_at < clock_timestamp() + $3::interval * 0.75
      and resource_id = any(array(select owed.plan_id from {_OWED} as owed))"""

#: Keeps them: who waits for an answer has not gone.
#: One that a transaction takes at this moment needs no renewal, and is not waited for: transactions take many, in another order.
RENEW: Final = f"""
update lease set expires_at = clock_timestamp() + $3::interval
where resource_id = any(array(
    select resource_id {_ENDING}
    order by resource_id for update skip locked))
"""

#: Whether there is anything of all that a replica looks for: mostly there is not, and one statement says so.
SIGHTED: Final = f"""
select exists (select {_ENDING}) as leases,
    exists (select {_DUE}) as due,
    exists (select {kept_news.WAITING}) as news,
    exists (select {_ORPHANED}) as orphans
"""

#: This owner's plans that are being checked, oldest first.
CHECKING: Final = """
select plan.plan_id from plan join lease on lease.resource_id = plan.plan_id and lease.owner = $1
where plan.state in ('INITIATED', 'PRECONDITIONS_PENDING') order by plan.seq limit $2
"""

#: Gives back every lease of an owner that stops.
RELEASE_ALL: Final = "update lease set expires_at = '-infinity' where owner = $1 and expires_at >= clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Change:
    """One change for watchers."""

    #: Grows by one with every change of the plan.
    number: int
    #: The change as it was written.
    event: bytes


async def page(connection: Connection, before: int | None, states: Sequence[State], limit: int) -> list[tuple[PlanId, int]]:
    """Ids and places of plans before a place, newest first."""
    rows = await connection.fetch(PAGE, before, [each.value for each in states], limit)
    return [(PlanId(row["plan_id"]), row["seq"]) for row in rows]


async def page_of(
    connection: Connection, client: Client, before: int | None, states: Sequence[State], limit: int
) -> list[tuple[PlanId, int]]:
    """As `page`, of what the client may see."""
    if client.standing.sees_all:
        return await page(connection, before, states, limit)
    names = [each.value for each in states]
    rows = await connection.fetch(PAGE_OF, before, names, limit, sorted(client.standing.parties), client.client_id)
    return [(PlanId(row["plan_id"]), row["seq"]) for row in rows]


async def place(connection: Connection, plan_id: PlanId) -> tuple[int, Belonging] | None:
    """Where a plan stands in the order of creation, and whose it is; None where there is no such plan."""
    row = await connection.fetchrow(PLACE, plan_id)
    if row is None:
        return None
    return row["seq"], _belonging(row)


async def belongings(connection: Connection, ids: Iterable[PlanId]) -> dict[PlanId, Belonging]:
    """Whose plans are; those that nobody knows are left out."""
    return {PlanId(row["plan_id"]): _belonging(row) for row in await connection.fetch(BELONGINGS, sorted(set(ids)))}


def _belonging(row: asyncpg.Record) -> Belonging:
    return Belonging(frozenset(each.party_id for each in stored.header_of(row["header"]).parties), row["created_by"])


async def transitions(connection: Connection, plan_id: PlanId, after: int, limit: int) -> list[Transition]:
    """Transitions of a plan behind a place, in order."""
    return [transition(row) for row in await connection.fetch(TRANSITIONS, plan_id, after, limit)]


def transition(row: asyncpg.Record) -> Transition:
    """A row of plan_transition."""
    moved = Moved(
        row["transition_no"],
        State(row["left_state"]) if row["left_state"] else None,
        State(row["entered_state"]),
        Decision(row["decision"]) if row["decision"] else None,
        Cause(row["cause"]),
        row["journal_sequence"],
    )
    return Transition(moved, row["moved_at"])


async def exists(connection: Connection, plan_id: PlanId) -> bool:
    """Whether there is such a plan."""
    return bool(await connection.fetchval(EXISTS, plan_id))


async def traceparents(connection: Connection, ids: Sequence[PlanId]) -> dict[PlanId, str | None]:
    """W3C trace contexts of the calls that created plans; those that nobody knows are left out."""
    return {PlanId(row["plan_id"]): row["traceparent"] for row in await connection.fetch(TRACEPARENTS, ids)}


async def known(connection: Connection, ids: Iterable[PlanId]) -> frozenset[PlanId]:
    """Those among ids that are plans'."""
    return frozenset(PlanId(row["plan_id"]) for row in await connection.fetch(KNOWN, sorted(ids)))


async def plan_event_head(connection: Connection, plan_id: PlanId) -> tuple[int, str]:
    """How many changes a plan has, and the incarnation of the log that they are in."""
    row = await connection.fetchrow(PLAN_EVENT_HEAD, plan_id)
    if row is None:
        raise AssertionError("the counter has one row")
    return row["number"], row["incarnation"]


async def changes(connection: Connection, plan_id: PlanId, after: int, limit: int) -> list[Change]:
    """Changes of a plan behind a place, in order."""
    rows = await connection.fetch(EVENTS, plan_id, after, limit)
    return [Change(row["number"], row["event"]) for row in rows]


async def closed(connection: Connection, plan_id: PlanId) -> tuple[bool, datetime]:
    """Whether a plan is closed, and the database's clock."""
    row = await connection.fetchrow(STATE, plan_id)
    if row is None:
        raise AssertionError("a plan stays")
    return row["state"] == State.CLOSED, row["clock"]


async def due(connection: Connection, owner: str, limit: int) -> list[PlanId]:
    """Plans that time matters to now."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(DUE, owner, limit)]


async def orphaned(connection: Connection, owner: str, limit: int) -> list[PlanId]:
    """Plans that something is to be done about and that nobody holds."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(ORPHANED, owner, limit)]


@dataclass(frozen=True, slots=True)
class Sighted:
    """What a replica's look found, of what nobody told it."""

    #: Leases of its own that end soon.
    leases: bool
    #: Plans that time matters to now.
    due: bool
    #: Reports that were kept for it.
    news: bool
    #: Plans that nobody holds.
    orphans: bool


async def look(connection: Connection, owner: str, generation: int, duration: timedelta) -> Sighted:
    """Whether there is anything to keep, to tick, to take or to take over."""
    row = await connection.fetchrow(SIGHTED, owner, generation, duration)
    if row is None:
        raise AssertionError("a statement without a table has one row")
    return Sighted(row["leases"], row["due"], row["news"], row["orphans"])


async def renew(connection: Connection, owner: str, generation: int, duration: timedelta) -> None:
    """Keep the leases of this owner's plans that something is to be done about."""
    await connection.execute(RENEW, owner, generation, duration)


async def checking(connection: Connection, owner: str, limit: int) -> list[PlanId]:
    """This owner's plans that are being checked."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(CHECKING, owner, limit)]


async def release_all(connection: Connection, owner: str) -> None:
    """Give back every lease of an owner that stops."""
    await connection.execute(RELEASE_ALL, owner)
