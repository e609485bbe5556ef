"""The twins of the databases: complete, and true to the real thing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import itertools
import json
import pkgutil
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from types import ModuleType
from typing import Any, Final

import asyncpg
import pytest

import coordinator.store
from bank_gateway import matters
from bank_gateway import outbox_store as bank_outbox_store
from bank_gateway import store as bank_store
from bank_gateway.ledger import store as ledger_store
from event_journal import payload_store as journal_payload_store
from event_journal import store as journal_store
from event_journal.log import store as journal_log_store
from lockstep_chain import leg_store
from lockstep_chain import store as chain_store
from lockstep_kit import leases
from lockstep_kit.participant import store as participant_store
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.simulation import running, schemas
from lockstep_testkit.simulation.chain_parties import ACCOUNTS, CHAIN_ID
from lockstep_testkit.simulation.database import MemoryDatabase
from lockstep_testkit.simulation.memory import Asked, Ended, Recorder, Schema, Transaction
from lockstep_testkit.simulation.specs import copied
from lockstep_testkit.simulation.world import COORDINATOR, World
from notary import store as notary_store

#: First words of statements; a constant that begins otherwise is a channel, an owner, a part of a statement.
_VERBS: Final = ("select ", "insert ", "update ", "delete ", "with ", "set ")
#: Seeds whose every statement is asked of a real database too: with two replicas, with aborts, with escalations.
SEEDS: Final = (2, 3, 5, 8, 13)
#: Columns that a database fills by itself, with its own clock or its own numbers.
OWN: Final = frozenset({"recorded_at", "found_at", "seq"})
#: Shadows what is real in the replayed database: its clock says what the twin's said.
SHADOWS: Final = (
    "create schema twin",
    """
    create function twin.clock_timestamp() returns timestamptz language sql stable as
    $$ select current_setting('twin.now')::timestamptz $$
    """,
    "grant usage on schema twin to public",
)


def statements_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, str) and value.strip().startswith(_VERBS):
            yield f"{module.__name__}.{name}", value


def modules_of(schema: str) -> list[ModuleType]:
    if schema == "coordinator":
        # What metrics read is read by no settlement.
        names = {each.name for each in pkgutil.iter_modules(coordinator.store.__path__)} - {"readings"}
        stores = [f"coordinator.store.{each}" for each in sorted(names)]
        return [leases, *(importlib.import_module(each) for each in stores)]
    return [participant_store, *_OWN_STORES[schema]]


#: Stores of each participant beside the one that all have.
_OWN_STORES: Final[Mapping[str, Sequence[ModuleType]]] = {
    "journal": (journal_store, journal_log_store, journal_payload_store),
    "bank": (bank_store, bank_outbox_store, ledger_store),
    "dlt_gateway": (chain_store, leg_store),
    "notary": (chain_store, leg_store, notary_store),
}


@pytest.mark.parametrize("name", ["coordinator", *_OWN_STORES])
def test_every_statement_of_a_twinned_store_has_a_twin(name: str) -> None:
    """Every statement of a store that the simulation runs has a twin; a new one is named here."""
    schema: Schema = getattr(schemas, name)("x")
    missing = [constant for module in modules_of(name) for constant, text in statements_of(module) if text not in schema.statements]
    assert missing == []


def recorded(seed: int, bend: Callable[[World], None]) -> Mapping[str, Recorder]:
    """What the databases of a seed were asked and answered, in an order in which transactions follow one another.

    Nothing of a seed in which one was put back: a real one cannot follow.
    """
    found: dict[str, Recorder] = {}
    worlds: list[World] = []

    def record(world: World) -> None:
        worlds.append(world)
        for name, server in world.servers.items():
            server.recorder = found[name] = []
        for trouble in world.troubles.values():
            # A statement that takes no time is not interrupted: transactions do not overlap.
            trouble.slow = 0.0
        bend(world)

    running.simulate(seed, watch=record)
    gc.collect()
    return {} if worlds[0].restored else found


def serial(recorder: Recorder) -> Iterator[list[Asked | Ended]]:
    """Transactions one after another, each with its end; statements that were one by themselves likewise."""
    groups: dict[Transaction, list[Asked | Ended]] = {}
    for each in recorder:
        if isinstance(each, Asked) and each.tx is None:
            yield [each]
        elif each.tx is not None:
            groups.setdefault(each.tx, []).append(each)
            if isinstance(each, Ended) and len(groups[each.tx]) > 1:
                yield groups.pop(each.tx)


class Replayed:
    """A real database that is asked what a twin was asked."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self.differences: list[str] = []
        self.asked = 0

    async def replay(self, group: list[Asked | Ended]) -> None:
        end = group[-1]
        if not isinstance(end, Ended):
            for each in group:
                await self._ask(each)
            return
        transaction = self._connection.transaction(isolation="read_committed")
        await transaction.start()
        try:
            for each in group[:-1]:
                if not await self._ask(each):
                    break
        finally:
            await (transaction.commit() if isinstance(end, Ended) and end.committed else transaction.rollback())

    async def _rows(self, asked: Asked) -> Sequence[asyncpg.Record]:
        if asked.text == copied(journal_store.COPY_ENTRIES):
            await journal_store.COPY_ENTRIES.copy(self._connection, asked.args)
            return []
        return await self._connection.fetch(asked.text, *asked.args)

    async def _ask(self, asked: Asked | Ended) -> bool:
        """Ask a statement and compare; whether the transaction can go on."""
        assert isinstance(asked, Asked)
        if isinstance(asked.answer, asyncpg.PostgresConnectionError):
            return False
        self.asked += 1
        await self._connection.execute("select set_config('twin.now', $1, false)", asked.now.isoformat())
        try:
            rows = [dict(row) for row in await self._rows(asked)]
        except asyncpg.PostgresError as error:
            if type(asked.answer) is not type(error):
                self.differences.append(f"{asked.text}\n{asked.args}\nraised {error!r}, its twin answered {asked.answer!r}")
            return False
        if isinstance(asked.answer, Exception):
            self.differences.append(f"{asked.text}\n{asked.args}\nits twin raised {asked.answer!r}")
            return False
        if returns(asked.text) and shown(rows, rows) != shown(asked.answer, rows):
            self.differences.append(
                f"{asked.text}\n{asked.args}\nat {asked.now}\nanswered {shown(rows, rows)}\nits twin {shown(asked.answer, rows)}"
            )
        return True


def returns(text: str) -> bool:
    """Whether the rows of a statement mean anything."""
    lowered = text.lower()
    return "pg_notify" not in lowered and (
        "returning" in lowered or lowered.strip().startswith(("select", "with locked", "with page"))
    )


def shown(rows: list[dict[str, Any]], like: list[dict[str, Any]]) -> list[str]:
    """Rows by their columns and values, whatever their order: not every statement gives one. Values without a name have none to be compared."""
    names = sorted((like[0].keys() if like else set()) - OWN)
    if {"sequence", "last_sequence"} <= set(names):
        # Which of the legs that one statement changed is numbered first is the database's own matter.
        names.remove("sequence")
        numbers = sorted(str(row["sequence"]) for row in rows)
        return numbers + sorted(str([(name, value(row.get(name))) for name in names]) for row in rows)
    if len(names) == 1:
        return sorted(value(row[names[0]] if names[0] in row else next(iter(row.values()))) for row in rows)
    return sorted(str([(name, value(row.get(name))) for name in names]) for row in rows)


def value(found: Any) -> str:
    if isinstance(found, Decimal):
        found = int(found)
    return found.isoformat() if isinstance(found, datetime) else repr(str(found) if isinstance(found, str) else found)


#: What a service's own package calls its database, and rows that draw something at random when they are made.
DATABASES: Final = {
    COORDINATOR: ("coordinator", ("plan_event_counter",)),
    "event-journal": ("event_journal", ("journal_counter", "journal_tree", "participant_outcome_counter")),
    "bank-gateway": ("bank_gateway", ("participant_outcome_counter",)),
    "dlt-gateway": ("dlt_gateway", ("participant_outcome_counter",)),
    "notary": ("notary", ("participant_outcome_counter",)),
}


def as_it_is(_: World) -> None:
    """Nothing is bent."""


def with_a_bad_bank(world: World) -> None:
    """A person looks into what the bank does; in every other seed it does everything wrong."""
    world.outside.spawn(closing(world))
    if world.seeded.seed % 2:
        return
    desk, rail = world.bank.desk.trouble, world.bank.trouble
    desk.forgets, desk.refuses, desk.refuses_cancellation, desk.turns_away, desk.loses, desk.contradicts = (
        0.3,
        0.4,
        0.2,
        0.1,
        0.6,
        0.4,
    )
    rail.loses, rail.damages = 0.3, 0.8


async def closing(world: World) -> None:
    """A person closes the bank-gateway's open matters, as they come, and looks whether the keys of its legs may be shown again."""
    name = "bank-gateway"
    db = MemoryDatabase(world.servers[name], world.outside, random.Random(1), world.troubles[name]).typed
    while True:
        await asyncio.sleep(2.0)
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            for line in await matters.show(db):
                await matters.close(db, json.loads(line)["id"], "looked into")
            async with db.connection() as connection:
                for row in list(world.servers[name].tables["bank_payment"].values()):
                    await bank_store.key_of_executing(connection, row["plan_id"], row["leg_id"])


def with_a_bad_chain(world: World) -> None:
    """The chain does everything wrong, and somebody does by hand what no gateway does by itself."""
    trouble = world.chain.node.trouble
    trouble.reorganised, trouble.dropped, trouble.stuck, trouble.doubled = 0.2, 0.3, 0.3, 0.3
    trouble.lost, trouble.unindexed, trouble.out_of_gas, trouble.impossible = 0.1, 0.2, 0.2, 0.1
    for name in ACCOUNTS:
        world.outside.spawn(prying(world, name))


async def prying(world: World, name: str) -> None:
    """Somebody asks for the lease of one of a gateway's accounts, looks at its transactions, and has one of them cancelled now and then."""
    db = MemoryDatabase(world.servers[name], world.outside, random.Random(1), world.troubles[name]).typed
    account = chain_store.Account(CHAIN_ID, world.chain.signers[name][0], "somebody")
    for turn in itertools.count():
        await asyncio.sleep(0.7)
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            async with db.connection() as connection:
                await account.acquire_lease(connection, 1.0)
                await account.nonce_taken(connection, turn % 5)
                if turn % 3:
                    await account.release_lease(connection)
                for row in list(world.servers[name].tables["evm_transaction"].values()):
                    await chain_store.by_keys(connection, [row["idempotency_key"]])
                    await chain_store.payload(connection, row["id"])
                    # Few are still queued when somebody looks, and these are the ones that can be withdrawn for good.
                    if row["state"] == "queued" or (row["state"] in ("signed", "sent") and turn % 20 == 0):
                        await chain_store.request_cancel(connection, row["idempotency_key"])
                    if name == "notary":
                        await notary_store.notarisation(connection, row["plan_id"])


BENT: Final[Mapping[str, Callable[[World], None]]] = {
    "bank-gateway": with_a_bad_bank,
    "dlt-gateway": with_a_bad_chain,
    "notary": with_a_bad_chain,
}
#: Where few plans have a leg of the participant, more seeds; and should these not ask everything, those of FURTHER until everything was asked.
MORE_SEEDS: Final[Mapping[str, Sequence[int]]] = {
    "bank-gateway": (10, 24, 32, 35, 41, 47),
    "dlt-gateway": (11, 15, 24, 32, 38, 41, 46),
    "notary": (5, 26, 30, 38, 41, 47),
}
FURTHER: Final = range(50, 90)
#: Stores whose every statement the seeds must have asked.
WHOLE: Final[Mapping[str, Sequence[ModuleType]]] = {
    "bank-gateway": (bank_store, bank_outbox_store, ledger_store),
    "dlt-gateway": (chain_store, leg_store),
    "notary": (chain_store, leg_store, notary_store),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", DATABASES)
async def test_a_real_database_answers_as_its_twin(name: str, database_for: Callable[..., Awaitable[TestDatabase]]) -> None:
    """Every statement of some whole seeds, faults and all, gets the same answer from Postgres as from its twin."""
    package, counters = DATABASES[name]
    asked, texts, unasked = 0, set[str](), list[str]()
    for seed in (*MORE_SEEDS.get(name, SEEDS), *(FURTHER if name in WHOLE else ())):
        # In a thread: two event loops cannot run in one.
        recorder = (await asyncio.to_thread(recorded, seed, BENT.get(name, as_it_is))).get(name)
        if recorder is None:
            continue
        database = await database_for(package)
        async with database.as_owner() as owner:
            for statement in SHADOWS:
                await owner.execute(statement)
            for table in counters:
                drawn = next(iter(_incarnation(recorder)), "x")
                column = "log_incarnation" if table == "journal_tree" else "incarnation"
                await owner.execute(f"update {table} set {column} = '{drawn}'")
            await owner.execute("set search_path = twin, pg_catalog, public")
            replayed = Replayed(owner)
            for group in serial(recorder):
                await replayed.replay(group)
                assert replayed.differences == [], f"seed {seed}: {replayed.differences[0]}"
            asked += replayed.asked
            texts |= {each.text for each in recorder if isinstance(each, Asked)}
        unasked = [constant for store in WHOLE.get(name, ()) for constant, text in statements_of(store) if text not in texts]
        if name in WHOLE and asked > 1_000 and not unasked:
            break
    assert asked > 1_000
    assert unasked == []


def _incarnation(recorder: Recorder) -> Iterator[str]:
    for each in recorder:
        if isinstance(each, Asked) and isinstance(each.answer, list):
            yield from (row["incarnation"] for row in each.answer if row.get("incarnation"))
