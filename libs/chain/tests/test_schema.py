from __future__ import annotations

import itertools

import asyncpg
import pytest
import sqlalchemy as sa

from lockstep_chain import final_store, schema
from lockstep_chain.machine import TRANSITIONS, State
from lockstep_kit.migrate import differences
from lockstep_testkit.databases import TestDatabase

INSERT = """
insert into evm_transaction (
    chain_id, signer, nonce, state, idempotency_key, payload_hash, to_address, data, value, gas_limit, purpose, evidence,
    transaction_hash, block_number, block_hash
)
values (
    138, case when $1 in ('queued', 'dead') then null else '0x1111111111111111111111111111111111111111' end,
    case when $1 in ('queued', 'dead') then null else 0 end, $1, $2, sha256('p'),
    '0x2222222222222222222222222222222222222222', '', 0, 21000, '', case when $1 = 'manual' then '{}'::jsonb end,
    case when $1 in ('mined', 'final', 'reverted', 'cancelled') then sha256('t') end,
    case when $1 in ('mined', 'final', 'reverted', 'cancelled') then 1 end,
    case when $1 in ('mined', 'final', 'reverted', 'cancelled') then sha256('b') end
)
"""

MOVE = """
update evm_transaction set state = $1, evidence = case when $1 = 'manual' then '{}'::jsonb end,
    signer = case when $1 in ('queued', 'dead') then null else '0x1111111111111111111111111111111111111111' end,
    nonce = case when $1 in ('queued', 'dead') then null else 0 end,
    transaction_hash = case when $1 in ('mined', 'final', 'reverted', 'cancelled') then sha256('t') end,
    block_number = case when $1 in ('mined', 'final', 'reverted', 'cancelled') then 1 end,
    block_hash = case when $1 in ('mined', 'final', 'reverted', 'cancelled') then sha256('b') end
"""

SIGNER = "insert into evm_signer (chain_id, address, next_nonce) values (138, '0x1111111111111111111111111111111111111111', 1)"


async def test_declared_is_migrated(database: TestDatabase) -> None:
    """What the code declares is what the migration made."""
    metadata = sa.MetaData()
    schema.transaction_tables(metadata)
    final_store.final_tables(metadata)
    sa.Table("told", metadata, *(sa.Column(name, sa.Text) for name in ("key", "state", "detail")),
             sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True), sa.Column("hash", sa.LargeBinary))  # fmt: skip
    sa.Table("alembic_version", metadata, sa.Column("version_num", sa.String(32), primary_key=True))
    assert await differences(database.owner_url, metadata) == []


async def test_the_database_has_the_same_table(database: TestDatabase) -> None:
    """The database allows exactly the transitions of the pure machine."""
    allowed: dict[State, set[State]] = {state: set() for state in State}
    refusals: set[str | None] = set()
    async with database.as_owner() as connection:
        await connection.execute(SIGNER)
        for origin, target in itertools.permutations(State, 2):
            attempt = connection.transaction()
            await attempt.start()
            await connection.execute("alter table evm_transaction disable trigger evm_transaction_guard")
            await connection.execute(INSERT, origin.value, "one")
            await connection.execute("alter table evm_transaction enable trigger evm_transaction_guard")
            try:
                await connection.execute(MOVE, target.value)
                allowed[origin].add(target)
            except asyncpg.CheckViolationError as error:
                refusals.add(error.constraint_name)
            await attempt.rollback()
    assert refusals == {"evm_transaction_transition"}
    assert allowed == {state: set(targets) for state, targets in TRANSITIONS.items()}


@pytest.mark.parametrize("state", [state for state in State if state is not State.QUEUED])
async def test_a_transaction_begins_as_queued(database: TestDatabase, state: State) -> None:
    """No transaction comes into being in any other state."""
    async with database.as_role() as connection:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await connection.execute(INSERT, state.value, "one")
    assert refused.value.constraint_name == "evm_transaction_transition"


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("update evm_transaction set nonce = 7", "evm_transaction_immutable"),
        ("update evm_transaction set data = 'other'", "evm_transaction_immutable"),
        ("update evm_transaction set idempotency_key = 'other'", "evm_transaction_immutable"),
        ("update evm_transaction set nonce = null, signer = null", "evm_transaction_immutable"),
        ("update evm_transaction set state = 'manual', evidence = null", "evm_transaction_manual"),
        ("update evm_transaction set state = 'final'", "evm_transaction_placed"),
    ],
)
async def test_what_never_changes(database: TestDatabase, statement: str, constraint: str) -> None:
    """What a transaction does, and its nonce once given, never change; every end has what shows it."""
    async with database.as_role() as connection:
        await connection.execute(SIGNER)
        await connection.execute(INSERT, "queued", "one")
        await connection.execute(MOVE, "signed")
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await connection.execute(statement)
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize(
    "statement",
    [
        "delete from evm_transaction",
        "delete from evm_attempt",
        "update evm_attempt set raw = ''",
        "update evm_attempt set transaction_hash = ''",
        "truncate evm_attempt",
        "alter table evm_transaction disable trigger evm_transaction_guard",
    ],
)
async def test_what_the_role_may_not(database: TestDatabase, statement: str) -> None:
    """The service's role deletes nothing, and changes no bytes that were signed."""
    async with database.as_role() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
