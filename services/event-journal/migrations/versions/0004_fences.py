"""Fences: a chain knows the highest epoch under which anything was sent to it, and the database lets nobody lower it."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    alter table journal_chain
        add column epoch_generation bigint not null default 0 check (epoch_generation >= 0),
        add column epoch_counter bigint not null default 0 check (epoch_counter >= 0)
    """,
    """
    alter table journal_chain
        alter column epoch_generation drop default,
        alter column epoch_counter drop default
    """,
    """
    create or replace function journal_chain_grows() returns trigger language plpgsql as $$
    begin
        if new.plan_id <> old.plan_id or new.entry_count < old.entry_count or (old.sealed and new is distinct from old) then
            raise exception 'a chain only grows, and a sealed one never changes' using errcode = 'integrity_constraint_violation';
        end if;
        if (new.epoch_generation, new.epoch_counter) < (old.epoch_generation, old.epoch_counter) then
            raise exception 'a chain''s fence is never lowered' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
)


def upgrade() -> None:
    """Fence the chains."""
    for statement in STATEMENTS:
        op.execute(statement)
