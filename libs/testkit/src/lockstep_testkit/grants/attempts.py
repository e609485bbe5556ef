"""Everything that a role should not be able to do in its database or to its server, as statements to be executed as the role."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from lockstep_testkit.grants.listed import Grants, TableGrants

_NOTHING: Final = TableGrants()

#: To things that PostgreSQL itself brings; each needs the rights of an owner, a superuser or one of the roles that come with it.
SERVER: Final = (
    "create table made (x integer)",
    "create temporary table made (x integer)",
    "create view made as select 1",
    "create sequence made",
    "create type made as (x integer)",
    "create function made() returns integer language sql as 'select 1'",
    "create procedure made() language sql as 'select 1'",
    "create schema made",
    "drop extension plpgsql",
    "alter extension plpgsql update",
    "create publication made for all tables",
    "create subscription made connection 'host=127.0.0.1' publication made with (connect = false)",
    "create foreign data wrapper made",
    "create language made handler plpgsql_call_handler",
    "create event trigger made on ddl_command_start execute function row_stays()",
    'create collation made from "C"',
    "create role made superuser",
    "create role made",
    "create database made",
    "create tablespace made location '/tmp'",
    "alter role current_user superuser",
    "alter role current_user createrole",
    "alter role current_user connection limit -1",
    "alter role postgres password 'made'",
    "alter system set fsync = off",
    "alter database {database} set search_path = made",
    "alter database {database} owner to current_user",
    "drop database {database}",
    "drop schema public cascade",
    "alter schema public owner to current_user",
    "reassign owned by {owner} to current_user",
    "drop owned by {owner}",
    "set role {owner}",
    "set role postgres",
    "set session authorization {owner}",
    "set session authorization postgres",
    "set session_replication_role = replica",
    "set log_statement = 'none'",
    "set log_min_error_statement = 'panic'",
    "set session_preload_libraries = 'made'",
    "load 'auto_explain'",
    "do 'begin end'",
    "copy (select 1) to '/tmp/made'",
    "copy (select 1) to program 'cat'",
    "copy {table} from '/etc/hostname'",
    "copy {table} from program 'true'",
    "select pg_read_file('/etc/hostname')",
    "select pg_read_binary_file('/etc/hostname')",
    "select pg_stat_file('/etc/hostname')",
    "select pg_ls_dir('/')",
    "select * from pg_ls_waldir()",
    "select * from pg_ls_logdir()",
    "select pg_current_logfile()",
    "select lo_import('/etc/hostname')",
    "select lo_export(1, '/tmp/made')",
    "select lo_creat(-1)",
    "select lo_create(0)",
    "select lo_from_bytea(0, 'made')",
    "select lo_unlink(1)",
    "select pg_logical_emit_message(false, 'made', 'made')",
    "select pg_reload_conf()",
    "select pg_rotate_logfile()",
    "select pg_switch_wal()",
    "select pg_promote()",
    "select pg_backup_start('made')",
    "select pg_create_restore_point('made')",
    "select pg_create_physical_replication_slot('made')",
    "select pg_create_logical_replication_slot('made', 'pgoutput')",
    "select pg_replication_origin_create('made')",
    "select pg_stat_reset()",
    "select pg_stat_reset_shared('wal')",
    "select pg_terminate_backend({backend})",
    "select pg_cancel_backend({backend})",
    "select * from pg_authid",
    "select * from pg_shadow",
    "select * from pg_hba_file_rules",
    "select * from pg_file_settings",
    "select * from pg_config",
    "select * from pg_largeobject",
    "select * from pg_statistic",
    "select * from pg_user_mapping",
    "select subconninfo from pg_subscription",
    "update pg_proc set prosecdef = true where false",
    "delete from pg_trigger where false",
    "insert into pg_auth_members default values",
)  # fmt: skip


def of_table(name: str, columns: Collection[str], allowed: TableGrants, other: str) -> Iterator[str]:
    """What a role may not do with a table; `other` is one of the role's own functions."""
    if "select" not in allowed.allowed:
        yield f"select from {name} limit 0"
        yield f"select {', '.join(columns)} from {name} limit 0"
        yield f"copy {name} to stdout"
    if "insert" not in allowed.allowed:
        yield f"insert into {name} default values"
    if "delete" not in allowed.allowed:
        yield f"delete from {name} where false"
        yield f"merge into {name} using (select 1) as x on false when matched then delete"
    for column in columns:
        if column not in allowed.update:
            yield f"update {name} set {column} = default where false"
    if not allowed.update:
        yield f"select 1 from {name} limit 0 for update"
    yield f"truncate {name}"
    if "delete" not in allowed.allowed:
        # Who may delete may also lock.
        yield f"lock table {name} in access exclusive mode"
    yield f"alter table {name} disable trigger all"
    yield f"alter table {name} add column made integer"
    yield f"alter table {name} owner to current_user"
    yield f"alter table {name} rename to made"
    yield f"alter table {name} enable row level security"
    yield f"drop table {name} cascade"
    yield f"create trigger made before insert on {name} for each row execute function {other}"
    yield f"create rule made as on insert to {name} do instead nothing"
    yield f"create policy made on {name}"
    yield f"create index made on {name} ({next(iter(columns))})"
    yield f"create statistics made on {', '.join(list(columns)[:2])} from {name}" if len(columns) > 1 else f"reindex table {name}"
    yield f"comment on table {name} is 'made'"
    yield f"reindex table {name}"


def of_view(name: str, allowed: TableGrants) -> Iterator[str]:
    """What a role may not do with a view."""
    if "select" not in allowed.allowed:
        yield f"select * from {name} limit 0"
    yield f"drop view {name}"
    yield f"create or replace view {name} as select 1"
    yield f"alter view {name} owner to current_user"


def of_function(signature: str) -> Iterator[str]:
    """What a role may not do with a function that it was not given."""
    name, _, types = signature.rstrip(")").partition("(")
    arguments = ", ".join(f"null::{each}" for each in types.split(",") if each)
    yield f"select {name}({arguments})"


def of_any_function(signature: str) -> Iterator[str]:
    """What a role may not do with any function."""
    yield f"drop function {signature} cascade"
    yield f"alter function {signature} security definer"
    yield f"alter function {signature} owner to current_user"


def of_sequence(name: str, sequences: Collection[str]) -> Iterator[str]:
    """What a role may not do with a sequence."""
    if name not in sequences:
        yield f"select nextval('{name}')"
    yield f"select last_value from {name}"
    yield f"select setval('{name}', 1)"
    yield f"alter sequence {name} restart"
    yield f"drop sequence {name} cascade"


def everything_else(
    grants: Grants,
    tables: Mapping[str, Collection[str]],
    views: Collection[str],
    functions: Mapping[str, bool],
    sequences: Collection[str],
    *,
    owner: str,
    database: str,
    backend: int,
) -> Iterator[str]:
    """Every statement that the list does not allow. `backend` is a session of the owner's."""
    other = next(name for name, is_trigger in functions.items() if is_trigger)
    first = next(name for name in tables if name not in views)
    for statement in SERVER:
        yield statement.format(owner=owner, database=database, backend=backend, table=first)
    for name, columns in tables.items():
        allowed = grants.tables.get(name, _NOTHING)
        yield from of_view(name, allowed) if name in views else of_table(name, columns, allowed, other)
    for signature in functions:
        if signature not in grants.functions:
            yield from of_function(signature)
        yield from of_any_function(signature)
    for name in sequences:
        yield from of_sequence(name, grants.sequences)
