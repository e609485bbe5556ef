"""What a role may do, as the database's own catalogue says: whatever way it came by it, through membership and through everybody's rights too."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import asyncpg

from lockstep_testkit.grants.listed import Grants, TableGrants

_TABLES: Final = """
select c.relname, array(select p from unnest(array['select', 'insert', 'delete']) as p where has_table_privilege($1, c.oid, p)) as allowed,
    array(select p from unnest(array['truncate', 'references', 'trigger', 'maintain']) as p where has_table_privilege($1, c.oid, p)) as others,
    array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and has_column_privilege($1, c.oid, a.attnum, 'update')) as updated,
    array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        and (has_column_privilege($1, c.oid, a.attnum, 'select') and not has_table_privilege($1, c.oid, 'select')
            or has_column_privilege($1, c.oid, a.attnum, 'insert') and not has_table_privilege($1, c.oid, 'insert')
            or has_column_privilege($1, c.oid, a.attnum, 'references'))) as partly
from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f') order by c.relname
"""
_COLUMNS: Final = """
select a.attname::text from pg_attribute a
where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
_FUNCTIONS: Final = """
select p.oid::regprocedure::text as name, p.prorettype = 'trigger'::regtype as is_trigger, has_function_privilege($1, p.oid, 'execute') as allowed
from pg_proc p where p.pronamespace = 'public'::regnamespace order by 1
"""
_SEQUENCES: Final = """
select c.relname, has_sequence_privilege($1, c.oid, 'usage') as usage,
    has_sequence_privilege($1, c.oid, 'select') or has_sequence_privilege($1, c.oid, 'update') as others
from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'S' order by c.relname
"""
_SCHEMAS: Final = """
select n.nspname from pg_namespace n where has_schema_privilege($1, n.oid, 'create')
    or (has_schema_privilege($1, n.oid, 'usage') and n.nspname not in ('public', 'pg_catalog', 'information_schema'))
"""
_ROLE: Final = """
select r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls, r.rolconnlimit, r.rolconfig,
    exists (select from pg_auth_members m where m.member = r.oid) as member,
    exists (select from pg_shdepend d where d.refobjid = r.oid and d.deptype = 'o') as owner,
    has_database_privilege(r.rolname, current_database(), 'create') or has_database_privilege(r.rolname, current_database(), 'temporary') as makes,
    array(select d.datname::text from pg_database d where d.datname <> current_database()
        and d.datallowconn and not d.datname ^@ r.rolname and has_database_privilege(r.rolname, d.datname, 'connect')) as others
from pg_roles r where r.rolname = $1
"""
_LANGUAGES: Final = "select lanname from pg_language where lanpltrusted and has_language_privilege($1, oid, 'usage')"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def granted(connection: Connection, role: str) -> Grants:
    """What the catalogue says, in the form of the list."""
    tables = {
        row["relname"]: TableGrants(frozenset(row["allowed"]), frozenset(row["updated"]))
        for row in await connection.fetch(_TABLES, role)
        if row["allowed"] or row["updated"]
    }
    functions = frozenset(row["name"] for row in await connection.fetch(_FUNCTIONS, role) if row["allowed"])
    return Grants(tables, functions, frozenset(row["relname"] for row in await connection.fetch(_SEQUENCES, role) if row["usage"]))


async def beyond(connection: Connection, role: str) -> list[str]:
    """What the role has that no list can give it: one line each."""
    found = []
    for row in await connection.fetch(_TABLES, role):
        found += [f"{each} on {row['relname']}" for each in row["others"]]
        found += [f"a privilege on {row['relname']}.{each}" for each in row["partly"]]
    found += [f"more than usage of {row['relname']}" for row in await connection.fetch(_SEQUENCES, role) if row["others"]]
    found += [f"schema {row['nspname']}" for row in await connection.fetch(_SCHEMAS, role)]
    found += [f"language {row['lanname']}" for row in await connection.fetch(_LANGUAGES, role)]
    (standing,) = await connection.fetch(_ROLE, role)
    kinds = ("rolsuper", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls", "member", "owner", "makes")
    found += [kind for kind in kinds if standing[kind]]
    found += [f"connect to {name}" for name in standing["others"]]
    if standing["rolconnlimit"] < 1:
        found.append("connections without limit")
    limits = {each.partition("=")[0] for each in standing["rolconfig"] or ()}
    wanted = {"statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"}
    return found + [f"no {each}" for each in sorted(wanted - limits)]


async def tables_of(connection: Connection) -> dict[str, list[str]]:
    """Every table and view, with its columns."""
    return {
        row["relname"]: [each["attname"] for each in await connection.fetch(_COLUMNS, row["relname"])]
        for row in await connection.fetch(_TABLES, "postgres")
    }


async def functions_of(connection: Connection) -> dict[str, Any]:
    """Every function, and whether it is a trigger's."""
    return {row["name"]: row["is_trigger"] for row in await connection.fetch(_FUNCTIONS, "postgres")}


async def sequences_of(connection: Connection) -> list[str]:
    """Every sequence."""
    return [row["relname"] for row in await connection.fetch(_SEQUENCES, "postgres")]
