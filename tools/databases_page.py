"""docs/databases.md: what each service's database role may do, from the services' lists of grants."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from workspace import ROOT

INTRODUCTION = """\
# Databases and their roles

Each service has a database of its own, an owner who migrates it, and a role as whom the service runs. The role owns nothing, is a member of nothing, and can
connect to no other database. What it may do is listed in the service's `grants.toml`, from which the tables below are generated (`make docs`). Each
service's `tests/test_grants.py` holds the list against the database: the catalogue says the same; everything else is tried, as the role, and refused; and every
grant is needed by one of the service's own statements.

## What the administrator of the server does

Migrations grant what a role needs of tables; an owner cannot bound a role, or take back what PostgreSQL gives everybody. In each service's database, as a
superuser, once, before the first migration (the sandbox does the same, `lockstep_sandbox.postgres`):

- `create role R login noinherit`, with its password in a file that the service's settings name; `connection limit`, `statement_timeout`, `lock_timeout` and
  `idle_in_transaction_session_timeout` for the role;
- `revoke all on database D from public`, `grant connect on database D to R`; the same revocation for `postgres` and `template1`;
- `revoke all on schema public from public`, `grant usage on schema public to public`;
- `revoke usage on language plpgsql, sql from public`, and the grant of both to the owner: nobody else runs code of his own;
- `revoke execute on function F from public` for what fills storage without a table: `lo_creat`, `lo_create`, `lo_from_bytea`, `lo_open`, `lo_put`, `lo_unlink`,
  `lowrite`, `pg_logical_emit_message`.

A migration that adds a column which the service updates grants it: `grant update (column) on table to role`.

## Plans' keys

`decision_key` holds each plan's key sealed (X25519 sealed boxes) to the coordinator's key and to an offline recovery key: who has the database, or a dump
of it, has no plan's key. To change either key: draw it, name it second in `seal_key_files` of every replica and restart them, name it first and restart
them again, then

    python -m coordinator.reseal --owner-url postgresql://owner@host/coordinator --owner-password-file FILE \\
        --key-file new.pem --key-file old.pem --recovery-public-key-file recovery-public.pem

with the service running or not; it may be stopped and begun again, and exits with 1 when it had to leave a key as it was. Then the old key comes out of the
settings. Where the service's key was lost, the recovery key's private half stands in for `old.pem`, on the machine where it is kept. Backups of before
hold keys sealed to the old key: it is destroyed when none of them is of use any more.
"""


def page() -> str:
    """The whole page."""
    return (
        "\n".join(
            [INTRODUCTION, *(line for path in sorted(ROOT.glob("services/*/grants.toml")) for line in section(path.parent.name))]
        )
        + "\n"
    )


def section(service: str) -> Iterator[str]:
    """One service's tables."""
    told = tomllib.loads((ROOT / "services" / service / "grants.toml").read_text())
    yield f"## {service}\n"
    yield "| table | may | of which columns may be changed |"
    yield "|---|---|---|"
    for name, grants in sorted(told["tables"].items()):
        columns = ", ".join(f"`{each}`" for each in grants.get("update", "").split())
        yield f"| `{name}` | {', '.join(grants.get('allowed', '').split())} | {columns} |"
    yield ""
    if functions := told.get("functions"):
        yield "Functions: " + ", ".join(f"`{each}`" for each in functions) + ".\n"
    if sequences := told.get("sequences"):
        yield "Sequences: " + ", ".join(f"`{each}`" for each in sequences) + ".\n"
