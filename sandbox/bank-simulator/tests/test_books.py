"""The books protect themselves: whatever is tried, they stay balanced, and what was written stays."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from bank_world import ALICE, BOB, CORRESPONDENT, FOREIGN, POOR, SEED, YEN, Gateway, Order, World, read, write_settings

from bank_simulator.main import running
from bank_simulator.seeding import SeedMismatch

PAYMENTS = 25
STATISTICS_SECONDS = 11.0

POST = "select * from post($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])"

HALF_A_POSTING = f"""
with made as (insert into postings (reference, kind) values ('half', 'OPENING') returning posting_id)
insert into entries (posting_id, account_id, currency, amount) select posting_id, '{ALICE}', 'EUR', 5 from made
"""


async def test_database_refuses(world: World) -> None:
    """Overdrafts, balances without entries, unbalanced postings, changes and removals are refused by the database itself."""
    async with world.open() as gateway:
        order = await gateway.hold()
        await gateway.release(order)
        await gateway.next("pacs.002")
        async with world.inside() as books:
            for statement in (
                f"update accounts set balance = balance + 1 where account_id = '{ALICE}'",
                f"update accounts set currency = 'USD' where account_id = '{ALICE}'",
                f"delete from accounts where account_id = '{ALICE}'",
                "insert into accounts (account_id, kind, owner_name, currency, scale, balance, overdraft_limit) values ('x', 'CUSTOMER', 'x', 'EUR', 2, 5, 0)",
                "update entries set amount = amount * 2",
                "delete from entries",
                "truncate entries cascade",
                "update postings set reference = 'x'",
                "delete from messages_in",
                "update messages_out set body = ''",
                "delete from mailbox_items",
                "update payments set amount = 1",
                "update payments set state = 'HELD'",
                "delete from payments",
                f"insert into postings (reference, kind, uetr) values ('twice', 'PAYMENT', '{order.uetr}')",
                "insert into postings (reference, kind) values ('empty', 'OPENING')",
                HALF_A_POSTING,
            ):
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await books.execute(statement)
        await gateway.conserved()
        assert await gateway.account(ALICE) == ("900.00", "0.00", "900.00")


async def test_books_that_grow_are_not_gone_through(world: World) -> None:
    """What is booked is found by its keys from the first payment on: what was planned while there was next to nothing holds for all that follow."""
    read = "select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname in ('entries', 'postings')"
    async with world.open() as gateway, world.inside() as books:
        found: list[int] = []
        for _ in range(2):
            # What the server is told of the tables by itself, every minute.
            await books.execute("analyze")
            for _ in range(PAYMENTS):
                await gateway.release(await gateway.hold(Order(amount="1.00")))
                for kind in ("pacs.002", "camt.054"):
                    await gateway.next(kind)
            found += await statistics(books, read)
        at_first, then = found
        # Each payment books two postings of two entries each; gone through once each time, there would be hundreds for each.
        assert then - at_first <= 4 * PAYMENTS


async def statistics(books: asyncpg.Connection[asyncpg.Record], query: str) -> asyncpg.Record:
    """What the bank's sessions told the server, once they did: each tells it 10 s after it did something, at the latest."""
    await asyncio.sleep(STATISTICS_SECONDS)
    row = await books.fetchrow(query)
    assert row is not None
    return row


async def test_post(world: World) -> None:
    """A batch is posted whole or not at all; the same reference is posted once, and with other content refused."""
    async with world.open() as gateway, world.inside() as books:
        item = (["a"], ["OPENING"], [None], [ALICE], [BOB], [100])
        first = await books.fetch(POST, *item)
        assert await books.fetch(POST, *item) == first
        for debited, credited, amount in ((ALICE, BOB, 101), (BOB, ALICE, 100), (ALICE, POOR, 100)):
            with pytest.raises(asyncpg.UniqueViolationError):
                await books.fetch(POST, ["a"], ["OPENING"], [None], [debited], [credited], [amount])
        with pytest.raises(asyncpg.CheckViolationError) as overdrawn:
            await books.fetch(POST, ["b", "c"], ["OPENING"] * 2, [None] * 2, [ALICE, BOB], [BOB, POOR], [1, 1_000_000])
        assert overdrawn.value.constraint_name == "account_not_overdrawn"
        for debited, credited, amount in (
            (ALICE, YEN, 1),
            (ALICE, "nobody", 1),
            (ALICE, BOB, 0),
            (ALICE, BOB, -5),
            (ALICE, ALICE, 1),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await books.fetch(POST, ["d"], ["OPENING"], [None], [debited], [credited], [amount])
        assert await gateway.account(BOB) == ("51.00", "0.00", "51.00")
        await gateway.conserved()


@pytest.mark.parametrize(
    "tampering",
    [
        f"update entries set amount = amount + 1 where account_id = '{ALICE}'",
        f"update accounts set balance = balance + 1 where account_id = '{ALICE}'",
        "delete from entries where posting_id = (select max(posting_id) from postings)",
        "update payments set state = 'SETTLED' where state = 'HELD'",
        "update payments set amount = amount + 1 where state = 'HELD'",
        "update postings set uetr = gen_random_uuid() where kind = 'HOLD'",
    ],
)
async def test_audit_finds_tampering(world: World, tampering: str) -> None:
    """Who gets past the database's rules is found by the audit."""
    async with world.open() as gateway, world.inside() as books:
        await gateway.hold()
        await gateway.conserved()
        tables = ("entries", "accounts", "payments", "postings")
        for table in tables:
            await books.execute(f"alter table {table} disable trigger user")
        await books.execute(tampering)
        verdict = await gateway.control("GET", "/audit")
        assert not verdict["conserved"]
        assert verdict["violations"]


async def test_concurrent_posters(world: World) -> None:
    """Many posters at once neither lose nor double nor unbalance an entry, and nobody waits for ever."""
    async with world.open() as gateway:
        pool = await asyncpg.create_pool(world.owner_url, min_size=8, max_size=8)
        accounts, seeded = [ALICE, BOB, POOR], random.Random(7)

        async def post(number: int) -> bool:
            debited, credited = seeded.sample(accounts, 2)
            try:
                await pool.fetch(POST, [f"n{number}"], ["OPENING"], [None], [debited], [credited], [seeded.randrange(1, 4000)])
            except asyncpg.CheckViolationError:
                return False
            return True

        done = await asyncio.gather(*(post(number) for number in range(400)))
        assert await pool.fetchval("select count(*) from postings where reference ~ '^n'") == sum(done)
        await pool.close()
        await gateway.conserved()


@pytest.mark.parametrize("seed", range(3))
async def test_random_sequences(world: World, seed: int) -> None:
    """After any sequence of payments, releases, cancellations, questions, repeats and expiries, at once and out of order, the books are right."""
    chance = random.Random(seed)
    async with world.open() as gateway:
        for kind, script in (
            ("lose", {}),
            ("duplicate", {}),
            ("delay", {"delay_ms": 50}),
            ("contradict", {}),
            ("expire_early", {}),
        ):
            await gateway.misbehave(kind, times=5, **script)
        for stage in ("payment", "release", "cancellation"):
            await gateway.misbehave("refuse", stage=stage, times=2)
        await gateway.misbehave("status_without_booking", times=2)
        orders = [an_order(chance) for _ in range(40)]
        steps = [(order, step) for order in orders for step in chance.sample(range(6), 4)]
        chance.shuffle(steps)
        for start in range(0, len(steps), 8):
            await asyncio.gather(*(do(gateway, *step) for step in steps[start : start + 8]))
            await gateway.conserved()
        for order in orders:
            await gateway.release(order)
            await gateway.cancel(order.uetr)
        await gateway.conserved()
        held = (await gateway.control("GET", "/payments", params={"state": "HELD"}))["payments"]
        assert held == []
        for account in (ALICE, BOB, POOR):
            assert (await gateway.account(account))[1] == "0.00"


def an_order(chance: random.Random) -> Order:
    debtor, creditor = chance.sample([ALICE, BOB, POOR], 2)
    order = Order(f"{chance.randrange(1, 200)}.{chance.randrange(100):02}", debtor=debtor, debtor_name=None, creditor=creditor)
    order = replace(order, conditional=chance.random() < 0.8, expires_in=chance.choice([0.2, 3600.0]))
    return replace(order, creditor=FOREIGN, creditor_agent=CORRESPONDENT) if chance.random() < 0.2 else order


async def do(gateway: Gateway, order: Order, step: int) -> None:
    match step:
        case 0 | 1 | 2:
            await gateway.pay(order)
        case 3:
            await gateway.release(order)
        case 4:
            await gateway.cancel(order.uetr)
        case _:
            await gateway.ask(order.uetr)


async def test_seed_again(world: World, tmp_path: Path) -> None:
    """Opening the bank again changes nothing; another owner or opening balance, or a lost counterparty, is refused at the start."""
    async with world.open() as gateway:
        order = await gateway.hold()
    async with world.open() as gateway:
        assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")
        assert await gateway.release(order) == 202
    first: dict[str, Any] = SEED["accounts"][0]  # type: ignore[index]
    stranger = {"name": "new", "bic": CORRESPONDENT, "identities": ["new"]}
    for change, error in (
        ({"accounts": [first | {"owner": "Mallory"}]}, SeedMismatch),
        ({"accounts": [first | {"opening_balance": "1.00"}]}, asyncpg.UniqueViolationError),
        ({"counterparties": [stranger]}, SeedMismatch),
    ):
        path = write_settings(tmp_path / "again", world.certificates, world.owner_url, SEED | change)
        with pytest.raises(error):
            async with running(read(path)):
                pass
