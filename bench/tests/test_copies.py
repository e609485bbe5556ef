"""Rows are copied on a real server: into tables that guard themselves as a service's tables do."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from lockstep_bench.copies import ORIGINALS, ORIGINALS_MAX, fill
from lockstep_testkit.databases import TestDatabase

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ORIGINAL = "11111111-1111-7111-8111-111111111111"
OTHER = "22222222-2222-7222-8222-222222222222"
TABLES = """
create table plan (plan_id text primary key, seq bigint generated always as identity unique, nonce bytea unique, name text unique, state text);
create table leg (
    plan_id text references plan, leg_id text, kind text not null check (kind = any (array['PREPARE', 'COMMIT'])), intent_key text,
    primary key (plan_id, leg_id), unique (kind, intent_key));
create table log (plan_id text, place inet not null unique);
create table lease (resource_id text primary key, owner text);
create table elsewhere (leg_id text primary key);
create function refused() returns trigger language plpgsql as $$ begin raise 'never written here'; end $$;
create trigger guard before insert on leg for each row execute function refused();
insert into plan (plan_id, nonce, name, state) values ($1, '\x01', 'one', 'CLOSED'), ($2, '\x02', 'two', 'EXECUTING');
insert into lease values ($1, 'here'), ($2, 'here');
insert into log values ($1, '10.0.0.1');
insert into elsewhere values ('bonds');
""".replace("$1", f"'{ORIGINAL}'").replace("$2", f"'{OTHER}'")
LEGS = f"insert into leg values ('{ORIGINAL}', 'bonds', 'PREPARE', 'key'), ('{ORIGINAL}', 'money', 'COMMIT', 'another')"


async def test_copied_rows_have_ids_of_their_own_and_nothing_that_must_be_unique_twice(
    database_for: Callable[..., Awaitable[TestDatabase]], superuser_url: str
) -> None:
    """What a unique index holds without the plan's id is drawn anew, each time; the rest is as it was, and a guard stands again afterwards."""
    database = await database_for("copies")
    connection = await asyncpg.connect(urlunsplit(urlsplit(superuser_url)._replace(path=f"/{database.name}")))
    try:
        await connection.execute(TABLES)
        await connection.execute("alter table leg disable trigger guard")
        await connection.execute(LEGS)
        await connection.execute("alter table leg enable always trigger guard")
        for salt, plans in (("0", 4), ("3", 7)):
            assert await fill(connection, [ORIGINAL], 3, salt) == ["log"]
            rows = await connection.fetch("select * from plan where plan_id <> $1", OTHER)
            assert len(rows) == plans
            for column in ("plan_id", "seq", "nonce", "name"):
                assert len({row[column] for row in rows}) == plans
            assert all(UUID7.fullmatch(row["plan_id"]) and row["plan_id"] <= ORIGINAL for row in rows)
            assert {row["state"] for row in rows} == {"CLOSED"}
            # What is copied next is no copy: those lack the rows that could not be copied.
            assert [row["plan_id"] for row in await connection.fetch(ORIGINALS, ORIGINALS_MAX)] == [ORIGINAL]
            legs = await connection.fetch("select leg.* from leg join plan using (plan_id)")
            assert (
                len(legs)
                == len({(row["plan_id"], row["leg_id"]) for row in legs})
                == len({row["intent_key"] for row in legs})
                == 2 * plans
            )
            assert {(row["leg_id"], row["kind"]) for row in legs} == {("bonds", "PREPARE"), ("money", "COMMIT")}
            leases = await connection.fetch("select resource_id, owner from lease where resource_id <> $1", OTHER)
            assert {row["resource_id"] for row in leases} == {row["plan_id"] for row in rows}
            assert {row["owner"] for row in leases} == {"here"}
            assert (
                await connection.fetchval("select count(*) from log")
                == await connection.fetchval("select count(*) from elsewhere")
                == 1
            )
        await connection.execute("set session_replication_role = origin")
        with pytest.raises(asyncpg.RaiseError, match="never written here"):
            await connection.execute(LEGS)
    finally:
        await connection.close()
