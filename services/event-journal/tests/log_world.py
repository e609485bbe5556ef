"""A journal's log over a real database, without its process, and its database as somebody sees it who has every right: the tests' own module."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from event_journal import store
from event_journal.appending import Head
from event_journal.chain import Entry, Event, link
from event_journal.log import reading
from event_journal.log.publishing import Rhythm
from event_journal.log.sequencer import Sequencer
from event_journal.log.tiles import grow
from event_journal.payload_keys import PayloadVault
from event_journal.signing_keys import SigningKeys
from lockstep_kit import merkle
from lockstep_kit.canonical import canonical
from lockstep_kit.db import Database
from lockstep_kit.ids import PlanId, journal_event_id
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import delivery_versus_payment, key_of, registry_of

KEY = key_of("event-journal")
ORIGIN = "lockstep.local/journal"
PLANS = [delivery_versus_payment().plan_id for _ in range(3)]
#: Entries of each plan; three plans fill more than one tile.
LENGTH = 100
VAULT = PayloadVault([bytes(range(32))])


class Log:
    """A journal's database with entries, a tree, and checkpoints at some sizes."""

    def __init__(self, db: Database, database: TestDatabase) -> None:
        self.db = db
        self.database = database
        self.sequencer = self.replica()

    def replica(self) -> Sequencer:
        """Another one that makes the log grow; it publishes whatever is new."""
        return Sequencer(self.db, SigningKeys(KEY, registry_of()), ORIGIN, Rhythm(timedelta(seconds=1), entries=1))

    async def append(self, plan_id: PlanId, count: int, *, after: int = 0) -> None:
        async with self.db.transaction() as tx:
            locked = await store.lock_chains(tx, [plan_id])
            head = locked.heads[plan_id]
            entries: list[Entry] = []
            previous = head.head_hash
            for sequence in range(after + 1, after + count + 1):
                entries.append(link(event(plan_id, sequence), previous, KEY))
                previous = entries[-1].entry_hash
            after_them = Head(plan_id, after + count, previous, sealed=False, frozen="", epoch=head.epoch)
            await store.save(tx, entries, [after_them], VAULT, locked.keys)

    async def audited(self) -> set[tuple[int, str]]:
        async with self.db.connection() as connection:
            return {(each.position, each.rule) async for each in reading.audit_log(connection, registry_of())}

    async def verified(self, plan_id: PlanId) -> set[tuple[int, str]]:
        async with self.db.connection() as connection:
            return {(each.sequence, each.rule) for each in await reading.audit_plan(connection, plan_id, registry_of())}

    async def tamper(self, *statements: str) -> None:
        """Do what no trigger allows, as a superuser who takes them all away."""
        tables = ("journal_entry", "journal_chain", "journal_counter", "journal_tile", "journal_tree", "journal_checkpoint")
        async with self.database.as_owner() as connection, connection.transaction():
            for table in tables:
                await connection.execute(f"alter table {table} disable trigger all")
            for statement in statements:
                await connection.execute(statement)
            for table in tables:
                await connection.execute(f"alter table {table} enable trigger all")

    async def remake_tree(self) -> None:
        """Rewrite the tree over the entries that there are now, and leave the checkpoints."""
        async with self.database.as_owner() as connection:
            rows = await connection.fetch("select canonical_bytes from journal_entry order by position")
            tiles = grow(0, {}, [merkle.leaf_hash(row["canonical_bytes"]) for row in rows])
            await self.tamper("delete from journal_tile", f"update journal_tree set tree_size = {len(rows)}")
            await connection.execute("alter table journal_tile disable trigger all")
            for name, hashes in tiles.items():
                await connection.execute("insert into journal_tile values ($1, $2, $3)", name.level, name.index, hashes)
            await connection.execute("alter table journal_tile enable trigger all")


def event(plan_id: PlanId, sequence: int) -> Event:
    return Event(
        plan_id=plan_id,
        sequence=sequence,
        event_id=journal_event_id(plan_id, sequence),
        type="plan.created" if sequence == 1 else "leg.prepared",
        actor="alice",
        actor_role="maker",
        event_time=datetime(2026, 11, 21, 12, 0, tzinfo=UTC),
        payload=canonical({"n": sequence}),
    )
