"""The ledger in its database: posted whole or not at all, once, within the limits, for ever; as a model says that is nothing but a list and a sum."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from bank_gateway.ledger import __main__ as command
from bank_gateway.ledger import chain, rules, store, upkeep
from bank_gateway.ledger.chain import Audit
from bank_gateway.ledger.rules import AccountKind, Entry, EntryKind, LedgerLeg, kind_of
from lockstep_kit.db import Database
from lockstep_testkit.databases import TestDatabase

Making = Callable[..., Awaitable[TestDatabase]]
pytestmark = pytest.mark.integration

EUR, USD = "COBADEFF/EUR", "COBADEFF/USD"
DEBTORS = ("DE89370400440532013000", "DE62370400440532013001", "FR1420041010050500013M02606")


@contextlib.asynccontextmanager
async def role_of(database: TestDatabase) -> AsyncIterator[Any]:
    """A connection of the service's role, as the stores take one."""
    async with database.as_role() as role:
        yield role


def uetr_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def asked(number: int, amount: int = 100, debtor: str = DEBTORS[0], ledger: str = EUR) -> Entry:
    return rules.instructed(LedgerLeg(ledger, debtor, uetr_of(number), amount))


def released(entry: Entry) -> Entry:
    leg = LedgerLeg(entry.ledger, entry.debit.partition("/")[0], entry.uetr, entry.amount)
    found = rules.given_up(leg, rules.standing([entry]))
    assert found is not None
    return found


async def limit(role: Any, **limits: int) -> None:
    await upkeep.limit(role, "COBADEFF", {(EUR, f"{debtor}/LINE"): minor for debtor, minor in limits.items()})


async def findings(database: TestDatabase) -> list[str]:
    """What both audits find: the one of the database, and the one that believes no database."""
    db = await Database.connect(database.settings, application_name="test")
    try:
        return (await command.audit(db))[1]
    finally:
        await db.close()


async def balances(connection: Any) -> dict[tuple[str, str], int]:
    rows = await connection.fetch("select ledger, account, balance from ledger_account where balance <> 0")
    return {(row["ledger"], row["account"]): row["balance"] for row in rows}


async def test_same_reference(database_for: Making) -> None:
    """The same entry again is the same entry, in the same batch or another; other content under its reference is refused, and with it the batch."""
    database = await database_for("bank_gateway")
    async with role_of(database) as role:
        first = asked(1)
        assert await store.post(role, [first, asked(2), first]) == [(1, True), (2, True), (1, False)]
        assert await store.post(role, [asked(3), first]) == [(3, True), (1, False)]
        before = await balances(role)
        for other in (replace(first, amount=99), replace(first, kind=EntryKind.HELD), replace(first, debit=f"{DEBTORS[1]}/LINE")):
            for batch in ([asked(4), other], [asked(5), replace(asked(5), amount=1)]):
                with pytest.raises(asyncpg.UniqueViolationError) as refused:
                    await store.post(role, batch)
                assert refused.value.constraint_name == "ledger_entry_reference"
        assert await balances(role) == before
        assert await role.fetchval("select count(*) from ledger_entry") == 3
        # The reference is one ledger's.
        assert await store.post(role, [asked(1, ledger=USD)]) == [(1, True)]
    assert await findings(database) == []


async def test_batch_is_whole(database_for: Making) -> None:
    """One entry that may not be leaves none of its batch, no account, no place in the chain."""
    database = await database_for("bank_gateway")
    async with role_of(database) as role:
        await store.post(role, [asked(1)])
        wrong = [
            released(asked(2, 500)),
            replace(asked(2), amount=0),
            replace(asked(2), credit=asked(2).debit),
            replace(asked(2), reference="with a blank"),
            replace(asked(2), ledger="EUR"),
            replace(asked(2), debit=f"{DEBTORS[0]}/OTHER"),
            replace(asked(2), amount=2**63 - 1),
        ]
        for entry in wrong:
            with pytest.raises(asyncpg.PostgresError):
                await store.post(role, [asked(3), asked(4, debtor=DEBTORS[1]), entry])
        rows = await role.fetch("select account, balance from ledger_account order by account")
        assert [tuple(row) for row in rows] == [(f"{DEBTORS[0]}/INSTRUCTED", 100), (f"{DEBTORS[0]}/LINE", -100)]
        assert await store.post(role, [asked(2)]) == [(2, True)]
    assert await findings(database) == []


async def test_limit_is_kept_by_the_database(database_for: Making) -> None:
    """A line is drawn to its limit and no further, whoever asks or does not; what is given back can be drawn again."""
    database = await database_for("bank_gateway")
    async with role_of(database) as role:
        await limit(role, **{DEBTORS[0]: 250})
        batch = [asked(1), asked(2), asked(3), asked(4, 50), asked(5, 10**12, DEBTORS[1])]
        assert await store.denied(role, batch) == {batch[2].reference}
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await store.post(role, batch)
        assert refused.value.constraint_name == "ledger_account_limit"
        await store.post(role, [each for each in batch if each is not batch[2]])
        assert await store.denied(role, [asked(6, 1)]) == {asked(6, 1).reference}
        await store.post(role, [released(batch[0])])
        assert await store.denied(role, [asked(6), asked(7, 1)]) == {asked(7, 1).reference}
        # A lower limit takes nothing back, and lets nothing more be drawn until enough was given back.
        await limit(role, **{DEBTORS[0]: 100})
        assert await store.denied(role, [asked(6, 1)]) == {asked(6, 1).reference}
        await store.post(role, [released(batch[1])])
        assert await store.denied(role, [asked(6, 50), asked(7, 1)]) == {asked(7, 1).reference}
        await limit(role)
        assert await store.denied(role, [asked(6, 10**12)]) == set()
        await store.post(role, [asked(6, 10**12)])
    assert await findings(database) == []


async def test_what_was_allowed_stays_allowed(database_for: Making) -> None:
    """Two transactions that draw from one line at the same time are allowed one after the other, so that both can post what they were allowed."""
    database = await database_for("bank_gateway")
    async with role_of(database) as one, role_of(database) as other:
        await limit(one, **{DEBTORS[0]: 100})

        async def draw(connection: Any, number: int, go_on: asyncio.Event) -> bool:
            async with connection.transaction():
                denied = await store.denied(connection, [asked(number, 60)])
                if not denied:
                    go_on.set()
                    await asyncio.sleep(0.2)
                    await store.post(connection, [asked(number, 60)])
                return not denied

        first = asyncio.Event()
        drawing = asyncio.create_task(draw(one, 1, first))
        await first.wait()
        assert await draw(other, 2, asyncio.Event()) is False
        assert await drawing is True
        assert await balances(one) == {(EUR, f"{DEBTORS[0]}/LINE"): -60, (EUR, f"{DEBTORS[0]}/INSTRUCTED"): 60}


async def test_nothing_moves_but_by_an_entry(database_for: Making) -> None:
    """The service's role writes to no table of the ledger; its owner neither alters nor removes an entry, nor moves a balance or a head by hand."""
    database = await database_for("bank_gateway")
    statements = (
        "update ledger_entry set amount = 1",
        "delete from ledger_entry",
        "truncate ledger_entry",
        "update ledger_account set balance = balance + 1",
        "update ledger_account set kind = 'NOSTRO'",
        "delete from ledger_account",
        "truncate ledger_account",
        "insert into ledger_account (ledger, account, kind, balance) values ('COBADEFF/EUR', 'A/LINE', 'LINE', 5)",
        "update ledger_head set sequence = 0",
        "delete from ledger_head",
        "truncate ledger_head",
        "insert into ledger_head (ledger, sequence) values ('COBADEFF/USD', 5)",
        "insert into ledger_entry select ledger, 9, 'x', kind, uetr, debit, credit, amount, recorded_at, previous, content, hash from ledger_entry",
    )
    async with role_of(database) as role, database.as_owner() as owner:
        await store.post(role, [asked(1)])
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)
        # Not even as replication does it.
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("set session_replication_role = replica")
    assert await findings(database) == []


async def test_owner_adds_no_entry_that_is_not_linked(database_for: Making) -> None:
    """An entry with right hashes of its own is refused in any other place than behind the last; behind it, it moves what it says."""
    database = await database_for("bank_gateway")
    insert = """
    insert into ledger_entry select $1, $2, $3, 'INSTRUCTED', '', $4, $5, 7, now(), $6, content, ledger_link($6, $2, now(), content)
    from (select ledger_content($1, $3, 'INSTRUCTED', '', $4, $5, 7) as content) as said
    """
    accounts = f"{DEBTORS[0]}/LINE", f"{DEBTORS[0]}/INSTRUCTED"
    async with role_of(database) as role, database.as_owner() as owner:
        await store.post(role, [asked(1), asked(2)])
        head = (await upkeep.heads(role))[EUR]
        for sequence, previous in ((3, bytes(32)), (2, head.hash), (4, head.hash)):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(insert, EUR, sequence, "x", *accounts, previous)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="accounts that are open"):
            await owner.execute(insert, EUR, 3, "x", accounts[0], f"{DEBTORS[1]}/HELD", head.hash)
        await owner.execute(insert, EUR, 3, "x", *accounts, head.hash)
        assert (await balances(role))[EUR, accounts[0]] == -207
    assert await findings(database) == []


@pytest.mark.parametrize(
    "tamper",
    [
        "update ledger_entry set amount = amount + 1 where sequence = 2",
        "update ledger_entry set reference = 'x' where sequence = 2",
        "update ledger_entry set recorded_at = recorded_at + interval '1 us' where sequence = 2",
        "update ledger_entry set previous = hash where sequence = 2",
        "delete from ledger_entry where sequence = 3",
        "delete from ledger_entry where sequence = 2",
        "delete from ledger_entry where sequence = 1",
        "update ledger_account set balance = balance + 1 where kind = 'HELD'",
        "update ledger_account set balance = balance + case kind when 'LINE' then 1 else -1 end where kind in ('LINE', 'INSTRUCTED')",
        "update ledger_head set sequence = 4",
        "update ledger_head set hash = decode(repeat('11', 32), 'hex')",
        "delete from ledger_head",
    ],
)
async def test_audits_notice_what_a_superuser_does(tamper: str, database_for: Making, superuser_url: str) -> None:
    """Whoever is above every trigger and constraint is still found out, by the database's audit and by the one that believes no database."""
    database = await database_for("bank_gateway")
    async with role_of(database) as role:
        await store.post(role, [asked(1), asked(2), replace(asked(3), credit=f"{DEBTORS[0]}/HELD")])
    assert await findings(database) == []
    url = f"{superuser_url.rpartition('/')[0]}/{database.name}"
    superuser: Any = await asyncpg.connect(url)
    try:
        for constraint in ("ledger_entry_content", "ledger_entry_hash"):
            await superuser.execute(f"alter table ledger_entry drop constraint {constraint}")
        for table in ("ledger_entry", "ledger_account", "ledger_head"):
            await superuser.execute(f"alter table {table} disable trigger all")
        await superuser.execute(tamper)
        own = await superuser.fetch("select * from ledger_audit")
        heads = await upkeep.heads(superuser)
        audit = Audit(EUR)
        found = [each async for page in upkeep.pages(superuser, EUR) for each in audit.read(page)]
        found += audit.close(heads.get(EUR, chain.Head()), await upkeep.accounts(superuser, EUR))
    finally:
        await superuser.close()
    assert own
    assert found


class Model:
    """A ledger as simple as it can be: what was posted, in order."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.entries: dict[tuple[str, str], tuple[int, Entry]] = {}
        self.balances: Counter[tuple[str, str]] = Counter()

    def post(self, batch: Sequence[Entry]) -> list[tuple[int, bool]] | None:
        """Sequences, and whether each is new; None when the batch is refused."""
        entries, moved, found = dict(self.entries), Counter(self.balances), []
        for each in batch:
            name = each.ledger, each.reference
            known = entries.get(name)
            if known is not None and known[1] != each:
                return None
            if known is None:
                entries[name] = sum(ledger == each.ledger for ledger, _ in entries) + 1, each
                moved[each.ledger, each.debit] -= each.amount
                moved[each.ledger, each.credit] += each.amount
            found.append((entries[name][0], known is None))
        for (_, account), balance in moved.items():
            kind, holder = kind_of(account), account.partition("/")[0]
            lowest = (
                -self.limits.get(holder, 10**30) if kind is AccountKind.LINE else 0 if kind in chain.NEVER_NEGATIVE else -(10**30)
            )
            if balance < lowest or (kind is AccountKind.SUSPENSE and balance > 0):
                return None
        self.entries, self.balances = entries, moved
        return found


def some_batch(rng: random.Random) -> list[Entry]:
    """Entries of a few legs, right and wrong, known and new."""
    batch = []
    for _ in range(rng.randrange(1, 7)):
        debtor = rng.choice(DEBTORS)
        leg = LedgerLeg(rng.choice((EUR, USD)), debtor, uetr_of(rng.randrange(60)), rng.randrange(1, 60))
        asking = rules.instructed(leg)
        kinds = (EntryKind.INSTRUCTED, EntryKind.HELD, EntryKind.SETTLED, EntryKind.RELEASED)
        kind = rng.choice((EntryKind.INSTRUCTED, *kinds))
        debit, credit = {
            EntryKind.INSTRUCTED: (AccountKind.LINE, AccountKind.INSTRUCTED),
            EntryKind.HELD: (rng.choice((AccountKind.INSTRUCTED, AccountKind.SUSPENSE)), AccountKind.HELD),
            EntryKind.SETTLED: (rng.choice((AccountKind.HELD, AccountKind.SUSPENSE)), AccountKind.SETTLED),
            EntryKind.RELEASED: (
                rng.choice((AccountKind.HELD, AccountKind.INSTRUCTED)),
                rng.choice((AccountKind.LINE, AccountKind.SUSPENSE)),
            ),
        }[kind]
        names = rules.account_of(debtor, debit), rules.account_of(debtor, credit)
        batch.append(replace(asking, kind=kind, reference=f"{leg.uetr}/{kind}", debit=names[0], credit=names[1]))
    return batch + [rng.choice(batch) for _ in range(rng.randrange(2))]


@pytest.mark.parametrize("seed", range(4))
async def test_answers_as_the_model(seed: int, database_for: Making) -> None:
    """Random batches are taken and refused, numbered and added up as the model says; both audits agree at the end."""
    rng = random.Random(seed)
    database = await database_for("bank_gateway")
    model = Model({DEBTORS[0]: 100, DEBTORS[1]: 400})
    taken = refused = 0
    async with role_of(database) as role:
        limits = {(ledger, f"{debtor}/LINE"): minor for ledger in (EUR, USD) for debtor, minor in model.limits.items()}
        await upkeep.limit(role, "COBADEFF", limits)
        for _ in range(300):
            batch = some_batch(rng)
            expected = model.post(batch)
            try:
                found: list[tuple[int, bool]] | None = await store.post(role, batch)
            except asyncpg.IntegrityConstraintViolationError:
                found = None
            assert found == expected, batch
            taken, refused = taken + (found is not None), refused + (found is None)
        assert await balances(role) == {name: balance for name, balance in model.balances.items() if balance}
    assert taken > 30
    assert refused > 30
    assert await findings(database) == []
