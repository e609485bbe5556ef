"""Quotas: how many plans each client has open, and how many more it may create now."""

from __future__ import annotations

from alembic import context, op

revision = "0010"
down_revision = "0009"

STATEMENTS = (
    """
    create table client_quota (
        client text,
        unspent double precision not null,
        counted_at timestamptz not null,
        constraint client_quota_pkey primary key (client)
    )
    """,
    """
    create table open_plan (
        plan_id text not null references plan,
        client text not null,
        constraint open_plan_pkey primary key (plan_id)
    )
    """,
    "create index open_plan_client on open_plan (client)",
    """
    create function open_plan_closed() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
    begin
        delete from open_plan where plan_id = new.plan_id;
        return null;
    end $$
    """,
    """
    create trigger open_plan_closed after update of state on plan
        for each row when (new.state = 'CLOSED' and old.state <> 'CLOSED') execute function open_plan_closed()
    """,
)


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in STATEMENTS:
        op.execute(statement)
    op.execute(f"grant select, insert, update on client_quota to {role}")
    op.execute(f"grant select, insert on open_plan to {role}")
