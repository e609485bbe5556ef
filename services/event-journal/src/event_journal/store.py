"""Every statement that the journal runs on its own tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from event_journal.appending import Head, Known, Submission
from event_journal.chain import Entry
from event_journal.key_store import STANDING, Standing
from event_journal.payload_keys import PayloadVault, StoredPayload, WrappedKey
from event_journal.payload_store import entries_of, seal
from lockstep_kit.db import Connection, CopyInto
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.values import dataclass

#: Makes sure that the plans' chains have a row to lock, whatever else happens.
OPEN_CHAINS: Final = """
insert into journal_chain (plan_id, entry_count, head_hash, sealed, frozen, epoch_generation, epoch_counter)
select plan_id, 0, decode(repeat('00', 32), 'hex'), false, '', 0, 0 from unnest($1::text[]) as plan_id order by plan_id
on conflict (plan_id) do nothing
"""

#: Locks the plans' chains, in one order for everybody. Beside each stand the plan's payload key, as it was when the statement began, and how the journal's
#: own keys stand.
LOCK_CHAINS: Final = f"""
with chain as materialized (
    select * from journal_chain where plan_id = any($1) order by plan_id for update
), standing as materialized ({STANDING})
select chain.*, key.wrapped_key, key.wrapping_key_id, standing.mark, standing.moment
from chain cross join standing left join journal_payload_key as key on key.plan_id = chain.plan_id
"""

#: The same behind the plans' journal legs that wait for entries, which are locked first; a row for each leg of a chain.
LOCK_LEGS_AND_CHAINS: Final = f"""
with leg as materialized (
    select plan_id, leg_id from participant_leg
    where plan_id = any($1) and phase in ('PREPARING', 'COMMITTING', 'ABORTING') order by plan_id, leg_id for update
), chain as materialized (
    select * from journal_chain where plan_id = any($1) and (select count(*) from leg) >= 0 order by plan_id for update
), standing as materialized ({STANDING})
select chain.*, key.wrapped_key, key.wrapping_key_id, standing.mark, standing.moment, leg.leg_id
from chain cross join standing left join journal_payload_key as key on key.plan_id = chain.plan_id left join leg on leg.plan_id = chain.plan_id
"""

#: Moves the heads of chains.
MOVE_HEADS: Final = """
update journal_chain as chain
set entry_count = moved.entry_count, head_hash = moved.head_hash, sealed = moved.sealed, frozen = moved.frozen,
    epoch_generation = moved.epoch_generation, epoch_counter = moved.epoch_counter
from unnest($1::text[], $2::bigint[], $3::bytea[], $4::boolean[], $5::text[], $6::bigint[], $7::bigint[])
    as moved (plan_id, entry_count, head_hash, sealed, frozen, epoch_generation, epoch_counter)
where chain.plan_id = moved.plan_id
"""

#: Entries that stand already at the places of a batch.
KNOWN_ENTRIES: Final = """
select entry.plan_id, entry.sequence, entry.type, coalesce(entry.payload_hash, sha256(entry.payload)) as payload_hash, entry.entry_hash
from journal_entry as entry
join unnest($1::text[], $2::bigint[]) as place (plan_id, sequence) using (plan_id, sequence)
"""

#: Channel on which followers are told that there are new entries.
CHANNEL: Final = "journal_entry"

#: Moves the heads of chains, takes the next places of the journal's one order, and tells followers how far it reaches then. The counter's row stays locked
#: until the transaction ends, so that no reader passes over a place; the chains' rows are locked before, so that nobody is waited for with it.
TAKE_POSITIONS: Final = f"""
with headed as ({MOVE_HEADS})
update journal_counter set next_position = next_position + $8
returning next_position - $8 as first, incarnation, pg_notify('{CHANNEL}', (next_position - 1)::text)
"""

#: Which log this is, and where it ends.
COUNTER: Final = "select incarnation, next_position from journal_counter"

#: Appends entries.
COPY_ENTRIES: Final = CopyInto(
    "journal_entry",
    (
        "plan_id",
        "sequence",
        "position",
        "event_id",
        "type",
        "actor",
        "actor_role",
        "event_time",
        "payload",
        "previous_hash",
        "entry_hash",
        "canonical_bytes",
        "key_id",
        "signature",
        "payload_hash",
        "payload_nonce",
    ),
)

#: Whole chains of plans beside their heads, as one state of all; of a plan that has no entries one row without one.
WHOLE_CHAINS: Final = """
select asked.plan_id as asked, chain.entry_count, chain.head_hash, chain.sealed, chain.frozen, entry.*
from unnest($1::text[]) as asked (plan_id)
left join journal_chain as chain on chain.plan_id = asked.plan_id
left join journal_entry as entry on entry.plan_id = asked.plan_id
order by asked.plan_id, entry.sequence
"""

#: The database's clock.
NOW: Final = "select date_trunc('microseconds', clock_timestamp())"

#: A stretch of plans' chains, one behind the other.
PLANS_ENTRIES: Final = """
select * from journal_entry where plan_id = any($1) and (plan_id, sequence) > ($2, $3) order by plan_id, sequence limit $4
"""

#: A stretch of the journal's one order.
ALL_ENTRIES: Final = "select * from journal_entry where position > $1 order by position limit $2"

#: The same for one plan.
PLAN_ENTRIES_BY_POSITION: Final = "select * from journal_entry where plan_id = $1 and position > $2 order by position limit $3"


@dataclass(frozen=True, slots=True)
class Locked:
    """Plans' chains, locked, and what was read with them."""

    #: Where the chains stand.
    heads: dict[PlanId, Head]
    #: The plans' payload keys; a plan's may be missing that was stored while the lock was waited for.
    keys: dict[PlanId, WrappedKey]
    #: Journal legs that owe an answer, locked too where that was asked for.
    legs: list[tuple[PlanId, LegId]]
    #: How the journal's own keys stand.
    standing: Standing


@dataclass(frozen=True, slots=True)
class Placed:
    """Entries that were given their places in the journal's one order."""

    #: Which log.
    log_id: str
    #: Place of the first.
    first: int
    #: In order.
    entries: Sequence[Entry]

    @property
    def last(self) -> int:
        """Place of the last."""
        return self.first + len(self.entries) - 1


async def lock_chains(tx: Connection, plans: Sequence[PlanId], *, begun: Collection[PlanId] = (), legs: bool = False) -> Locked:
    """Lock plans' chains, opened where there were none, as of those that are begun; on request with the legs that wait for entries before them."""
    names = sorted(set(plans))
    statement = LOCK_LEGS_AND_CHAINS if legs else LOCK_CHAINS
    if begun:
        await tx.execute(OPEN_CHAINS, sorted(begun))
    rows = await tx.fetch(statement, names)
    heads = _heads(rows)
    if len(heads) < len(names):
        await tx.execute(OPEN_CHAINS, names)
        rows = await tx.fetch(statement, names)
        heads = _heads(rows)
    return Locked(
        heads,
        {row["plan_id"]: WrappedKey(row["wrapped_key"], row["wrapping_key_id"]) for row in rows if row["wrapped_key"] is not None},
        [(PlanId(row["plan_id"]), LegId(row["leg_id"])) for row in rows if row["leg_id"] is not None] if legs else [],
        Standing(rows[0]["mark"], rows[0]["moment"]),
    )


def _heads(rows: Sequence[asyncpg.Record]) -> dict[PlanId, Head]:
    return {PlanId(row["plan_id"]): _head(row) for row in rows}


def _head(row: asyncpg.Record) -> Head:
    return Head(
        PlanId(row["plan_id"]),
        row["entry_count"],
        Digest(row["head_hash"]),
        sealed=row["sealed"],
        frozen=row["frozen"],
        epoch=Epoch(row["epoch_generation"], row["epoch_counter"]),
    )


async def known_entries(tx: Connection, sent: Sequence[Submission], heads: Mapping[PlanId, Head]) -> list[Known]:
    """Entries that stand at the events' places, of which there are none behind the locked heads."""
    sound = [each.event for each in sent if each.malformed is None]
    taken = [event for event in sound if event.sequence <= heads[event.plan_id].entry_count]
    if not taken:
        return []
    rows = await tx.fetch(KNOWN_ENTRIES, [event.plan_id for event in taken], [event.sequence for event in taken])
    return [
        Known(PlanId(row["plan_id"]), row["sequence"], row["type"], Digest(row["payload_hash"]), Digest(row["entry_hash"]))
        for row in rows
    ]


async def save(
    tx: Connection, entries: Sequence[Entry], heads: Sequence[Head], vault: PayloadVault, keys: Mapping[PlanId, WrappedKey]
) -> Placed | None:
    """Append entries, their payloads encrypted, and move heads; the journal's counter is taken last. `keys` are those that were read under the locks."""
    moved = (
        [head.plan_id for head in heads],
        [head.entry_count for head in heads],
        [head.head_hash for head in heads],
        [head.sealed for head in heads],
        [head.frozen for head in heads],
        [head.epoch.generation for head in heads],
        [head.epoch.counter for head in heads],
    )
    if not entries:
        if heads:
            await tx.execute(MOVE_HEADS, *moved)
        return None
    payloads = await seal(tx, entries, vault, keys)
    taken = await tx.fetchrow(TAKE_POSITIONS, *moved, len(entries))
    if taken is None:
        raise AssertionError("the journal's counter has no row: the migration did not run to its end")
    placed = Placed(taken["incarnation"], taken["first"], entries)
    await COPY_ENTRIES.copy(
        tx,
        [_row(entry, placed.first + place, payload) for place, (entry, payload) in enumerate(zip(entries, payloads, strict=True))],
    )
    return placed


def _row(entry: Entry, position: int, payload: StoredPayload) -> tuple[object, ...]:
    """An entry as `COPY_ENTRIES` takes it."""
    event, signature = entry.event, entry.signature
    return (
        event.plan_id,
        event.sequence,
        position,
        event.event_id,
        event.type,
        event.actor,
        event.actor_role,
        event.event_time,
        payload.octets,
        entry.previous_hash,
        entry.entry_hash,
        entry.canonical_bytes,
        signature.key_id,
        signature.octets,
        entry.payload_hash,
        payload.nonce,
    )


async def plans_entries(
    tx: Connection, plans: Sequence[PlanId], *, after: tuple[str, int] = ("", 0), limit: int
) -> list[asyncpg.Record]:
    """Rows of plans' chains behind a place in one of them, in order of plan and sequence."""
    return await tx.fetch(PLANS_ENTRIES, plans, *after, limit)


async def whole_chains(
    tx: Connection, plans: Sequence[PlanId], vault: PayloadVault
) -> dict[PlanId, tuple[Head | None, list[Entry]]]:
    """Heads and whole chains of plans; read in one statement, so that they are one state of each."""
    if not plans:
        return {}
    rows = await tx.fetch(WHOLE_CHAINS, plans)
    found: dict[PlanId, tuple[Head | None, list[Entry]]] = {}
    for row in rows:
        plan_id = PlanId(row["asked"])
        if plan_id not in found:
            found[plan_id] = (_standing(plan_id, row), [])
    for entry in await entries_of(tx, [row for row in rows if row["sequence"] is not None], vault):
        found[entry.event.plan_id][1].append(entry)
    return found


def _standing(plan_id: PlanId, row: asyncpg.Record) -> Head | None:
    """Where the head says that a chain stands; None where there is none."""
    if row["entry_count"] is None:
        return None
    return Head(plan_id, row["entry_count"], Digest(row["head_hash"]), sealed=row["sealed"], frozen=row["frozen"])


async def log_end(connection: Connection) -> tuple[str, int]:
    """Which log this is, and its last place."""
    row = await connection.fetchrow(COUNTER)
    if row is None:
        raise AssertionError("the journal's counter has no row: the migration did not run to its end")
    return row["incarnation"], row["next_position"] - 1


async def now(tx: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = await tx.fetchval(NOW)
    return moment


async def entries_after(tx: Connection, position: int, *, plan_id: PlanId | None, limit: int) -> list[asyncpg.Record]:
    """Rows behind a place in the journal's order, of one plan or of all."""
    if plan_id is None:
        return await tx.fetch(ALL_ENTRIES, position, limit)
    return await tx.fetch(PLAN_ENTRIES_BY_POSITION, plan_id, position, limit)
