"""Every statement that the journal runs on its own tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from event_journal.appending import Head, Known
from event_journal.chain import Entry, Event
from lockstep_kit.db import Connection
from lockstep_kit.ids import Digest, KeyId, LegId, PlanId, sha256
from lockstep_kit.signing import Signature

#: Makes sure that the plans' chains have a row to lock, whatever else happens.
OPEN_CHAINS: Final = """
insert into journal_chain (plan_id, entry_count, head_hash, sealed, frozen)
select plan_id, 0, decode(repeat('00', 32), 'hex'), false, '' from unnest($1::text[]) as plan_id order by plan_id
on conflict (plan_id) do nothing
"""

#: Locks the plans' chains, in one order for everybody.
LOCK_CHAINS: Final = """
select plan_id, entry_count, head_hash, sealed, frozen from journal_chain where plan_id = any($1) order by plan_id for update
"""

#: Moves the heads of chains.
MOVE_HEADS: Final = """
update journal_chain as chain
set entry_count = moved.entry_count, head_hash = moved.head_hash, sealed = moved.sealed, frozen = moved.frozen
from unnest($1::text[], $2::bigint[], $3::bytea[], $4::boolean[], $5::text[]) as moved (plan_id, entry_count, head_hash, sealed, frozen)
where chain.plan_id = moved.plan_id
"""

#: Entries that stand already at the places of a batch.
KNOWN_ENTRIES: Final = """
select entry.plan_id, entry.sequence, entry.event_id, entry.type, entry.payload, entry.entry_hash
from journal_entry as entry
join unnest($1::text[], $2::bigint[]) as place (plan_id, sequence) using (plan_id, sequence)
"""

#: Takes the next places of the journal's one order. The row stays locked until the transaction ends, so that no reader passes over a place.
TAKE_POSITIONS: Final = "update journal_counter set next_position = next_position + $1 returning next_position - $1"

#: Which log this is, and where it ends.
COUNTER: Final = "select incarnation, next_position from journal_counter"

#: Appends entries.
INSERT_ENTRIES: Final = """
insert into journal_entry
    (plan_id, sequence, position, event_id, type, actor, actor_role, event_time, payload, previous_hash, entry_hash, canonical_bytes,
     key_id, signature)
select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::bytea[],
    $10::bytea[], $11::bytea[], $12::bytea[], $13::text[], $14::bytea[])
"""

#: A stretch of one plan's chain.
PLAN_ENTRIES: Final = "select * from journal_entry where plan_id = $1 and sequence > $2 order by sequence limit $3"

#: A stretch of the journal's one order.
ALL_ENTRIES: Final = "select * from journal_entry where position > $1 order by position limit $2"

#: The same for one plan.
PLAN_ENTRIES_BY_POSITION: Final = "select * from journal_entry where plan_id = $1 and position > $2 order by position limit $3"

#: Locks the plans' journal legs that wait for entries, before their chains.
LOCK_WAITING_LEGS: Final = """
select plan_id, leg_id from participant_leg
where plan_id = any($1) and phase in ('PREPARING', 'COMMITTING', 'ABORTING') order by plan_id, leg_id for update
"""

#: Tells followers that there are new entries.
NOTIFY: Final = "select pg_notify('journal_entry', '')"

#: Channel of `NOTIFY`.
CHANNEL: Final = "journal_entry"


async def lock_waiting_legs(tx: Connection, plans: Sequence[PlanId]) -> list[tuple[PlanId, LegId]]:
    """Journal legs that owe an answer, locked."""
    return [(PlanId(row["plan_id"]), LegId(row["leg_id"])) for row in await tx.fetch(LOCK_WAITING_LEGS, list(plans))]


async def lock_heads(tx: Connection, plans: Sequence[PlanId]) -> dict[PlanId, Head]:
    """Heads of the plans' chains, locked; opened where there were none."""
    names = sorted(set(plans))
    await tx.execute(OPEN_CHAINS, names)
    rows = await tx.fetch(LOCK_CHAINS, names)
    return {
        PlanId(row["plan_id"]): Head(
            PlanId(row["plan_id"]), row["entry_count"], Digest(row["head_hash"]), sealed=row["sealed"], frozen=row["frozen"]
        )
        for row in rows
    }


async def known_entries(tx: Connection, events: Sequence[Event]) -> dict[tuple[PlanId, int], Known]:
    """Entries that stand at the events' places."""
    rows = await tx.fetch(KNOWN_ENTRIES, [event.plan_id for event in events], [event.sequence for event in events])
    return {
        (PlanId(row["plan_id"]), row["sequence"]): Known(
            row["event_id"], row["type"], sha256(row["payload"]), Digest(row["entry_hash"])
        )
        for row in rows
    }


async def save(tx: Connection, entries: Sequence[Entry], heads: Sequence[Head]) -> None:
    """Append entries and move heads; the journal's counter is taken last."""
    if heads:
        await tx.execute(
            MOVE_HEADS,
            [head.plan_id for head in heads],
            [head.entry_count for head in heads],
            [head.head_hash for head in heads],
            [head.sealed for head in heads],
            [head.frozen for head in heads],
        )
    if not entries:
        return
    first = await tx.fetchval(TAKE_POSITIONS, len(entries))
    events = [entry.event for entry in entries]
    await tx.execute(
        INSERT_ENTRIES,
        [event.plan_id for event in events],
        [event.sequence for event in events],
        list(range(first, first + len(entries))),
        [event.event_id for event in events],
        [event.type for event in events],
        [event.actor for event in events],
        [event.actor_role for event in events],
        [event.event_time for event in events],
        [event.payload for event in events],
        [entry.previous_hash for entry in entries],
        [entry.entry_hash for entry in entries],
        [entry.canonical_bytes for entry in entries],
        [entry.signature.key_id for entry in entries],
        [entry.signature.octets for entry in entries],
    )
    await tx.execute(NOTIFY)


def entry_of(row: asyncpg.Record) -> Entry:
    """A stored entry."""
    event = Event(
        plan_id=PlanId(row["plan_id"]),
        sequence=row["sequence"],
        event_id=row["event_id"],
        type=row["type"],
        actor=row["actor"],
        actor_role=row["actor_role"],
        event_time=row["event_time"],
        payload=row["payload"],
    )
    return Entry(event, Digest(row["previous_hash"]), row["canonical_bytes"], Signature(KeyId(row["key_id"]), row["signature"]))


async def plan_entries(tx: Connection, plan_id: PlanId, *, after: int = 0, limit: int = 500) -> list[asyncpg.Record]:
    """Rows of a plan's chain, in order."""
    return await tx.fetch(PLAN_ENTRIES, plan_id, after, limit)


async def whole_chain(tx: Connection, plan_id: PlanId) -> list[Entry]:
    """A plan's whole chain; read in one statement, so that it is one state of it."""
    return [entry_of(row) for row in await tx.fetch(PLAN_ENTRIES, plan_id, 0, None)]


async def entries_after(tx: Connection, position: int, *, plan_id: PlanId | None, limit: int) -> list[asyncpg.Record]:
    """Rows behind a place in the journal's order, of one plan or of all."""
    if plan_id is None:
        return await tx.fetch(ALL_ENTRIES, position, limit)
    return await tx.fetch(PLAN_ENTRIES_BY_POSITION, plan_id, position, limit)
