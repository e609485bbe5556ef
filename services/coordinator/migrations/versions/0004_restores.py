"""Restores: which generation the database has seen, and what is to be asked, filled in and called out after one of the databases was put back."""

from __future__ import annotations

from alembic import context, op

revision = "0004"
down_revision = "0003"

TABLES = (
    """
    create table installation (
        singleton boolean not null default true check (singleton),
        generation bigint not null check (generation >= 1),
        constraint installation_pkey primary key (singleton)
    )
    """,
    "insert into installation (generation) values (1)",
    """
    create table plan_restore (
        plan_id text not null references plan,
        generation bigint not null,
        finding text not null,
        constraint plan_restore_pkey primary key (plan_id)
    )
    """,
    """
    create table sweep (
        participant text not null,
        number bigint not null check (number >= 1),
        page_token text not null,
        constraint sweep_pkey primary key (participant)
    )
    """,
    """
    create table listed_leg (
        participant text not null,
        plan_id text not null,
        leg_id text not null,
        revision bigint not null,
        phase text not null,
        constraint listed_leg_pkey primary key (participant, plan_id, leg_id)
    )
    """,
    """
    create table orphan_leg (
        plan_id text not null,
        leg_id text not null,
        participant text not null,
        phase text not null,
        deadline timestamptz,
        amount text not null,
        finding text not null,
        found_at timestamptz not null default clock_timestamp(),
        settled_at timestamptz,
        constraint orphan_leg_pkey primary key (plan_id, leg_id)
    )
    """,
    "create index orphan_leg_open on orphan_leg (plan_id) where settled_at is null",
    """
    create table journal_refill (
        plan_id text not null references plan,
        constraint journal_refill_pkey primary key (plan_id)
    )
    """,
)

RULES = (
    # A process that was started before the last restore holds nothing any more, whatever it believes; giving back what it held is all it may do.
    """
    create function lease_of_this_generation() returns trigger language plpgsql as $$
    begin
        if new.expires_at > clock_timestamp() and new.generation < (select generation from installation) then
            return null;
        end if;
        return new;
    end $$
    """,
    """
    create trigger lease_of_this_generation before insert or update on lease
        for each row execute function lease_of_this_generation()
    """,
    """
    create function installation_kept() returns trigger language plpgsql as $$
    begin
        if new.generation < old.generation then
            raise exception 'a generation never goes back'
                using errcode = 'integrity_constraint_violation', constraint = 'installation_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger installation_kept before update on installation for each row execute function installation_kept()",
    # An orphan's row stays as what a person is told of it.
    "create trigger orphan_leg_stays before delete on orphan_leg for each row execute function row_stays()",
    "create trigger orphan_leg_never_truncated before truncate on orphan_leg for each statement execute function row_stays()",
    "alter table orphan_leg enable always trigger orphan_leg_stays",
    "alter table orphan_leg enable always trigger orphan_leg_never_truncated",
)


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in (*TABLES, *RULES):
        op.execute(statement)
    op.execute(f"grant select, update on installation to {role}")
    op.execute(f"grant update on plan_event_counter to {role}")
    op.execute(f"grant select, insert, update on orphan_leg to {role}")
    for table in ("plan_restore", "sweep", "listed_leg", "journal_refill"):
        op.execute(f"grant select, insert, update, delete on {table} to {role}")
