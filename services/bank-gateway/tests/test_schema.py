"""The database keeps the promises by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from bank_gateway.tables import METADATA
from lockstep_kit.ids import sha256
from lockstep_kit.migrate import differences
from lockstep_testkit.databases import TestDatabase

Making = Callable[..., Awaitable[TestDatabase]]

MESSAGE = "insert into bank_message (direction, message_id, kind, octets, sha256) values ('OUT', 'P1', 'pacs.008.001.13', $1, $2)"
QUARANTINED = "insert into bank_quarantine (counterparty, cursor, octets, field, rule) values ('B', 1, 'x', 'message', 'must')"
STATED = """
insert into bank_statement (counterparty, account, booking_date, number, statement_id) values ('B', 'A', '2026-11-21', 1, 'S1') returning id
"""
PAGE = "insert into bank_statement_page (statement, page, last, message_id, message_sha256) values ($1, 1, true, 'M1', $2)"
BROKEN = """
insert into bank_break (matter, kind, account, booking_date, subject, asset, minor_units, scale)
values (1, 'MISSING_HERE', 'A', '2026-11-21', 'B1', 'EUR', 100, 2)
"""
QUEUED = """
insert into bank_outbox (plan_id, leg_id, uetr, action, idempotency_key, octets) values ('p', 'l', 'u', 'SEND', 'P1', 'x')
"""


async def test_migrated_schema_is_the_declared_one(database_for: Making) -> None:
    """What the migrations make is what the code declares: no table, column, key or index more or less."""
    database = await database_for("bank_gateway")
    assert await differences(database.owner_url, METADATA) == []


async def test_messages_and_quarantine_stay(database_for: Making) -> None:
    """What went over the wire is neither changed nor removed: not by the service's role, not by the owner."""
    database = await database_for("bank_gateway")
    async with database.as_role() as role, database.as_owner() as owner:
        await role.execute(MESSAGE, b"<a/>", sha256(b"<a/>"))
        await role.execute(QUARANTINED)
        for table in ("bank_message", "bank_quarantine"):
            for statement in (f"update {table} set octets = 'y'", f"delete from {table}", f"truncate {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await role.execute(statement)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="is kept as it was"):
                    await owner.execute(statement)
        with pytest.raises(asyncpg.CheckViolationError, match="bank_message_hash"):
            await role.execute(MESSAGE, b"<b/>", sha256(b"<a/>"))


async def test_statements_and_breaks_stay(database_for: Making) -> None:
    """What the bank stated and what was found by it is not removed, nor is a page changed: not by the service's role, not by the owner."""
    database = await database_for("bank_gateway")
    async with database.as_role() as role, database.as_owner() as owner:
        statement = await role.fetchval(STATED)
        await role.execute(PAGE, statement, sha256(b"page"))
        await role.execute(BROKEN)
        for table in ("bank_statement", "bank_statement_page", "bank_break"):
            for order in (f"delete from {table}", f"truncate {table} cascade"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await role.execute(order)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="is kept as it was"):
                    await owner.execute(order)
        for order in (
            "update bank_break set minor_units = 0",
            "update bank_statement set number = 9",
            "update bank_statement_page set page = 2",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(order)
        with pytest.raises(asyncpg.CheckViolationError, match="bank_statement_reconciled"):
            await role.execute("update bank_statement set reconciled_at = clock_timestamp()")


async def test_outbox_goes_one_way(database_for: Making) -> None:
    """What was queued goes out as it is, and what ended never begins again; nothing is removed."""
    database = await database_for("bank_gateway")
    async with database.as_role() as role, database.as_owner() as owner:
        await role.execute(QUEUED)
        for state in ("ACKED", "FAILED"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="never"):
                await role.execute("update bank_outbox set state = $1", state)
        await role.execute("update bank_outbox set state = 'SENT', attempts = 1")
        for column in ("octets = 'y'", "idempotency_key = 'P2'", "uetr = 'v'", "action = 'RELEASE'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(f"update bank_outbox set {column}")
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(f"update bank_outbox set {column}")
        await role.execute("update bank_outbox set state = 'ACKED'")
        for state in ("QUEUED", "SENT", "FAILED"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="never"):
                await role.execute("update bank_outbox set state = $1", state)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("delete from bank_outbox")


async def test_a_payment_keeps_its_names(database_for: Making) -> None:
    """One payment for each leg, one leg for each payment; plan, leg and UETR are never changed by the service."""
    database = await database_for("bank_gateway")
    insert = "insert into bank_payment (plan_id, leg_id, uetr, end_to_end_id, status) values ($1, 'l', $2, $1, '{}')"
    uetr = "0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01"
    async with database.as_role() as role:
        await role.execute(insert, "p", uetr)
        with pytest.raises(asyncpg.UniqueViolationError, match="bank_payment_uetr_key"):
            await role.execute(insert, "q", uetr)
        with pytest.raises(asyncpg.CheckViolationError, match="bank_payment_uetr_form"):
            await role.execute(insert, "q", uetr.upper())
        for statement in (
            "update bank_payment set uetr = 'x'",
            "update bank_payment set end_to_end_id = 'x'",
            "update bank_payment set plan_id = 'x'",
            "delete from bank_payment",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
