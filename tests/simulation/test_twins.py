"""The twins of the databases: complete, and true to the real thing."""

from __future__ import annotations

import asyncio
import gc
import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from types import ModuleType
from typing import Any, Final

import asyncpg
import pytest

import coordinator.store
from event_journal import store as journal_store
from lockstep_kit import leases
from lockstep_kit.participant import store as participant_store
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.simulation import running, schemas
from lockstep_testkit.simulation.memory import Asked, Ended, Recorder, Schema, Transaction
from lockstep_testkit.simulation.world import COORDINATOR, World

#: First words of statements; a constant that begins otherwise is a channel, an owner, a part of a statement.
_VERBS: Final = ("select ", "insert ", "update ", "delete ", "with ", "set ")
#: Seeds whose every statement is asked of a real database too: with two replicas, with aborts, with escalations.
SEEDS: Final = (2, 3, 5, 8)
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
        stores = [f"coordinator.store.{each.name}" for each in pkgutil.iter_modules(coordinator.store.__path__)]
        return [leases, *(importlib.import_module(each) for each in stores)]
    return [participant_store, journal_store] if schema == "journal" else [participant_store]


@pytest.mark.parametrize("name", ["coordinator", "participant", "journal"])
def test_every_statement_of_a_twinned_store_has_a_twin(name: str) -> None:
    """Every statement of a store that the simulation runs has a twin; a new one is named here."""
    schema: Schema = getattr(schemas, name)("x")
    missing = [constant for module in modules_of(name) for constant, text in statements_of(module) if text not in schema.statements]
    assert missing == []


def recorded(seed: int) -> Mapping[str, Recorder]:
    """What the databases of a seed were asked and answered, in an order in which transactions follow one another."""
    found: dict[str, Recorder] = {}

    def record(world: World) -> None:
        for name, server in world.servers.items():
            server.recorder = found[name] = []
        for trouble in world.troubles.values():
            # A statement that takes no time is not interrupted: transactions do not overlap.
            trouble.slow = 0.0

    running.simulate(seed, watch=record)
    gc.collect()
    return found


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

    async def _ask(self, asked: Asked | Ended) -> bool:
        """Ask a statement and compare; whether the transaction can go on."""
        assert isinstance(asked, Asked)
        if isinstance(asked.answer, asyncpg.PostgresConnectionError):
            return False
        self.asked += 1
        await self._connection.execute("select set_config('twin.now', $1, false)", asked.now.isoformat())
        try:
            rows = [dict(row) for row in await self._connection.fetch(asked.text, *asked.args)]
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
    if len(names) == 1:
        return sorted(value(row[names[0]] if names[0] in row else next(iter(row.values()))) for row in rows)
    return sorted(str([(name, value(row.get(name))) for name in names]) for row in rows)


def value(found: Any) -> str:
    return found.isoformat() if isinstance(found, datetime) else repr(str(found) if isinstance(found, str) else found)


#: What a service's own package calls its database, and rows that draw something at random when they are made.
DATABASES: Final = {COORDINATOR: ("coordinator", "plan_event_counter"), "event-journal": ("event_journal", "journal_counter")}


@pytest.mark.integration
@pytest.mark.parametrize("name", DATABASES)
async def test_a_real_database_answers_as_its_twin(name: str, database_for: Callable[..., Awaitable[TestDatabase]]) -> None:
    """Every statement of some whole seeds, faults and all, gets the same answer from Postgres as from its twin."""
    package, counter = DATABASES[name]
    asked = 0
    for seed in SEEDS:
        # In a thread: two event loops cannot run in one.
        recorder = (await asyncio.to_thread(recorded, seed))[name]
        database = await database_for(package)
        async with database.as_owner() as owner:
            for statement in SHADOWS:
                await owner.execute(statement)
            incarnations = {"coordinator": [counter], "event_journal": [counter, "participant_outcome_counter"]}[package]
            for table in incarnations:
                drawn = next(iter(_incarnation(recorder)), "x")
                await owner.execute(f"update {table} set incarnation = '{drawn}'")
            await owner.execute("set search_path = twin, pg_catalog, public")
            replayed = Replayed(owner)
            for group in serial(recorder):
                await replayed.replay(group)
                assert replayed.differences == [], f"seed {seed}: {replayed.differences[0]}"
            asked += replayed.asked
    assert asked > 1_000


def _incarnation(recorder: Recorder) -> Iterator[str]:
    for each in recorder:
        if isinstance(each, Asked) and isinstance(each.answer, list):
            yield from (row["incarnation"] for row in each.answer if row.get("incarnation"))
