"""Sixty-four post at the same time while their connections are cut in the middle of transactions: no entry is lost, doubled or unbalanced."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from test_ledger_database import DEBTORS, EUR, USD, findings, uetr_of

from bank_gateway.ledger import rules, store
from bank_gateway.ledger.rules import Entry, LedgerLeg
from bank_gateway.operations import Known
from lockstep_kit.db import is_transient
from lockstep_testkit.databases import TestDatabase

pytestmark = pytest.mark.integration

POSTERS = 64
#: Legs of each poster; each is instructed, held, and settled or given up: three batches.
LEGS = 12
KILLS = 150
SECONDS_MAX = 240.0


def batches(poster: int) -> Iterator[list[Entry]]:
    """What a poster posts: all its legs, over accounts that all posters share."""
    rng = random.Random(poster)
    legs = [
        LedgerLeg(rng.choice((EUR, USD)), rng.choice(DEBTORS), uetr_of(poster * LEGS + number), rng.randrange(1, 10_000))
        for number in range(LEGS)
    ]
    histories = {leg.uetr: [rules.instructed(leg)] for leg in legs}
    yield [histories[leg.uetr][0] for leg in legs]
    for settling in (False, True):
        batch = []
        for leg in legs:
            known = Known(status="ACSC", booking_reference="B") if settling else Known(status="ACFW")
            now = rules.standing(histories[leg.uetr])
            entry = rules.given_up(leg, now) if settling and rng.random() < 0.3 else rules.heard(leg, now, known, None)
            assert entry is not None
            histories[leg.uetr].append(entry)
            batch.append(entry)
        rng.shuffle(batch)
        yield batch


class Poster:
    """One of many, which goes on until it was told that what it posts is there."""

    def __init__(self, database: TestDatabase, number: int) -> None:
        self._url = database.role_url
        self._number = number
        self._connection: Any = None
        self.cut = 0

    @property
    def pid(self) -> int | None:
        """Its session, while it posts."""
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection.get_server_pid()

    async def run(self) -> None:
        for batch in batches(self._number):
            while not await self._posted(batch):
                self.cut += 1
        if self._connection is not None:
            await self._connection.close()

    async def _posted(self, batch: list[Entry]) -> bool:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url)
            async with self._connection.transaction():
                await store.post(self._connection, batch)
                # What else is in a transaction that posts: time to be cut between the posting and the commit.
                await self._connection.execute("select pg_sleep(0.002)")
        except Exception as error:
            # Accounts and heads are locked in one order: nobody waits in a circle.
            if not is_transient(error) or isinstance(error, asyncpg.DeadlockDetectedError):
                raise
            return False
        return True


async def test_posters_that_are_cut(database_for: Callable[..., Awaitable[TestDatabase]], superuser_url: str) -> None:
    """What was posted by anybody is there once; balances, heads and links are what the entries come to."""
    database = await database_for("bank_gateway")
    posters = [Poster(database, number) for number in range(POSTERS)]
    rng = random.Random(1)
    superuser = await asyncpg.connect(superuser_url)
    running = [asyncio.create_task(poster.run()) for poster in posters]
    try:
        async with asyncio.timeout(SECONDS_MAX):
            for _ in range(KILLS):
                await asyncio.sleep(rng.uniform(0.0, 0.03))
                pids = [pid for poster in posters if (pid := poster.pid) is not None]
                if pids:
                    await superuser.execute("select pg_terminate_backend($1)", rng.choice(pids))
            await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await superuser.close()
    assert sum(poster.cut for poster in posters) > KILLS / 10
    expected = [entry for number in range(POSTERS) for batch in batches(number) for entry in batch]
    sums: Counter[tuple[str, str]] = Counter()
    for entry in expected:
        sums[entry.ledger, entry.debit] -= entry.amount
        sums[entry.ledger, entry.credit] += entry.amount
    async with database.as_owner() as owner:
        references = await owner.fetch("select ledger, reference from ledger_entry")
        accounts = await owner.fetch("select ledger, account, balance from ledger_account")
    assert Counter((row["ledger"], row["reference"]) for row in references) == Counter(
        (each.ledger, each.reference) for each in expected
    )
    assert {(row["ledger"], row["account"]): row["balance"] for row in accounts} == dict(sums)
    assert await findings(database) == []
