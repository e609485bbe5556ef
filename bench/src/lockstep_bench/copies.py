"""Settled plans by the ten thousand, to see what a database that has grown costs: rows of plans that were settled, copied in SQL under new ids.

What the copies are good for: the tables that name plans have the size, with their indexes, that so many settled plans leave; `grow` names those that
take no copies. What is lost at the edge: nobody signed the copies, no chain, book or journal knows them, triggers and references did not see them. Only
the bench does this, and only to a sandbox; nothing that is copied is ever asked for.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from lockstep_sandbox.stack import Sandbox, package_of

#: The event journal is left out: its log is a chain of hashes, and `make bench-journal` measures how it grows.
COPIED: Final = ("coordinator", "dlt-gateway", "bank-gateway", "notary")
#: Plans of which the others are copies.
ORIGINALS_MAX: Final = 20
_COPY_SECONDS_MAX: Final = 300.0

#: Columns that name what is drawn anew in another table; were they alike in all copies, Postgres would take them for such that many rows have.
NAMING: Final = frozenset({"intent_key"})
#: Tables that name plans, each with the column that does, its columns, their types, and whether a unique index without the plan's id holds them, by more than
#: a kind. A lease's resource is a plan.
COLUMNS: Final = """
select c.relname as table, p.attname as key, a.attname as column, format_type(a.atttypid, null) as type,
       exists (select from pg_index i where i.indrelid = c.oid and i.indisunique and a.attnum = any(i.indkey)
               and not p.attnum = any(i.indkey))
           and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'c' and k.conkey = array[a.attnum]
               and pg_get_constraintdef(k.oid) like '% = ANY (%') as alone
from pg_class c
join pg_attribute p on p.attrelid = c.oid and p.attname in ('plan_id', 'resource_id')
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
order by c.relname, a.attnum
"""
#: Plans that came to their end first, of which nothing is owed any more, and no copies: their numbers go below 1.
ORIGINALS: Final = "select plan_id from plan where state = 'CLOSED' and seq > 0 order by seq limit $1"
#: Triggers and references do not look at what this session writes, but for triggers that always do.
UNCHECKED: Final = "set session_replication_role = replica"
GUARDS: Final = "select tgname from pg_trigger where tgrelid = $1::regclass and tgenabled = 'A'"


async def grow(sandbox: Sandbox, plans: int, there: int) -> tuple[int, list[str]]:
    """Have at least so many plans more in every database than are `there`; how many there are more, and the tables that take no copies (logs).

    Raises:
        ValueError: no plan was settled yet.
    """
    async with superuser(sandbox, "coordinator") as connection:
        originals = [row["plan_id"] for row in await connection.fetch(ORIGINALS, ORIGINALS_MAX)]
    if not originals:
        raise ValueError("there is no settled plan to be copied")
    times = -(-plans // len(originals))
    left_out = []
    for service in COPIED:
        async with superuser(sandbox, service) as connection:
            left_out += [f"{service}: {table}" for table in await fill(connection, originals, times, f"{there}")]
            # What follows so many new rows by itself, and would be counted among what a settlement costs.
            await connection.execute("vacuum (analyze)", timeout=_COPY_SECONDS_MAX)
            await connection.execute("checkpoint", timeout=_COPY_SECONDS_MAX)
    return times * len(originals), left_out


async def fill(connection: asyncpg.Connection[asyncpg.Record], originals: list[str], times: int, salt: str) -> list[str]:
    """Copy the rows of these plans so many times, in every table of a database that names plans; the tables that take no copies.

    What is copied again needs another salt. The connection is a superuser's, and its session sets nothing off any more.
    """
    await connection.execute(UNCHECKED)
    tables: dict[str, list[Any]] = {}
    for row in await connection.fetch(COLUMNS):
        tables.setdefault(row["table"], []).append(row)
    left_out = []
    for table, columns in tables.items():
        try:
            await _copy(connection, table, columns, (originals, times, salt))
        except asyncpg.IntegrityConstraintViolationError:
            left_out.append(table)
    return left_out


async def _copy(
    connection: asyncpg.Connection[asyncpg.Record], table: str, columns: list[Any], values: tuple[list[str], int, str]
) -> None:
    """Copy a table's rows, past its guards."""
    async with connection.transaction():
        guards = [row["tgname"] for row in await connection.fetch(GUARDS, table)]
        for guard in guards:
            await connection.execute(f'alter table "{table}" disable trigger "{guard}"')
        await connection.execute(_statement(table, columns), *values, timeout=_COPY_SECONDS_MAX)
        for guard in guards:
            await connection.execute(f'alter table "{table}" enable always trigger "{guard}"')


def _statement(table: str, columns: list[Any]) -> str:
    """Copies a table's rows about plans ($1) so many times ($2), under ids that are drawn from a salt ($3).

    What must be unique by itself is drawn anew; numbers go below those that are there.
    """
    key = columns[0]["key"]
    names = ", ".join(f'"{each["column"]}"' for each in columns)
    values = ", ".join(_value(table, key, each["column"], each["type"], alone=each["alone"]) for each in columns)
    return (
        f'insert into "{table}" ({names}) overriding system value select {values} '
        f'from "{table}" o cross join generate_series(1, $2::bigint) n where o."{key}" = any($1)'
    )


def _value(table: str, key: str, column: str, of_type: str, *, alone: bool) -> str:
    if column == key:
        return _earlier(f'o."{key}"')
    if not alone and column not in NAMING:
        return f'o."{column}"'
    drawn = _drawn(f'o."{column}"::text')
    match of_type:
        case "bytea":
            return f"uuid_send({drawn})"
        case "bigint" | "integer":
            return f'o."{column}" - n * (select max("{column}") - min("{column}") + 1 from "{table}")'
        case "text":
            return f"{drawn}::text"
    # A kind or a place beside something that is drawn anew; where it is not, the table takes no copies.
    return f'o."{column}"'


def _drawn(of: str) -> str:
    """A UUID as version 4 has it."""
    return f"overlay(overlay(md5({of} || '/' || n || '/' || $3) placing '4' from 13) placing 'a' from 17)::uuid"


def _earlier(of: str) -> str:
    """A UUID as version 7 has it, as of so many milliseconds before another one."""
    milliseconds = f"('x' || left(replace({of}, '-', ''), 12))::bit(48)::bigint - n"
    octets = f"lpad(to_hex({milliseconds}), 12, '0') || right(md5({of} || '/' || n || '/' || $3), 20)"
    return f"overlay(overlay({octets} placing '7' from 13) placing 'a' from 17)::uuid::text"


def superuser(sandbox: Sandbox, service: str) -> _Connection:
    """A connection to a service's database that may do everything."""
    return _Connection(sandbox.databases.server.url, sandbox.databases.logins[package_of(service)].url.rsplit("/", 1)[1])


class _Connection:
    """A connection to a database as the server's own user."""

    def __init__(self, url: str, database: str) -> None:
        self._url = url
        self._database = database

    async def __aenter__(self) -> asyncpg.Connection[asyncpg.Record]:
        self._connection = await asyncpg.connect(self._url, database=self._database)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()
