"""Chains, entries, and the participant's tables."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit.participant import schema

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    create table journal_chain (
        plan_id text primary key,
        entry_count bigint not null check (entry_count >= 0),
        head_hash bytea not null check (octet_length(head_hash) = 32),
        sealed boolean not null,
        frozen text not null
    )
    """,
    # A chain only grows, and a seal is for ever: whatever the service's code does.
    """
    create function journal_chain_grows() returns trigger language plpgsql as $$
    begin
        if new.plan_id <> old.plan_id or new.entry_count < old.entry_count or (old.sealed and new is distinct from old) then
            raise exception 'a chain only grows, and a sealed one never changes' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger journal_chain_grows before update on journal_chain for each row execute function journal_chain_grows()
    """,
    """
    create table journal_entry (
        plan_id text not null,
        sequence bigint not null check (sequence >= 1),
        position bigint not null check (position >= 1),
        event_id text not null,
        type text not null check (type in (
            'plan.created', 'plan.initiated', 'plan.ready', 'leg.prepared', 'leg.refused', 'plan.approved', 'plan.released',
            'leg.executed', 'evidence.validated', 'plan.committed', 'plan.aborted', 'exception.raised', 'exception.resolved',
            'leg.reversed', 'plan.closed')),
        actor text not null,
        actor_role text not null,
        event_time timestamptz not null,
        payload bytea not null,
        previous_hash bytea not null check (octet_length(previous_hash) = 32),
        entry_hash bytea not null check (entry_hash = sha256(canonical_bytes)),
        canonical_bytes bytea not null,
        key_id text not null,
        signature bytea not null check (octet_length(signature) = 64),
        recorded_at timestamptz not null default now(),
        constraint journal_entry_pkey primary key (plan_id, sequence),
        constraint journal_entry_position_key unique (position),
        constraint journal_entry_event_id_key unique (event_id),
        -- Two entries behind the same one would be a fork.
        constraint journal_entry_no_fork unique (plan_id, previous_hash)
    )
    """,
    # An entry stands behind the one that it names, with the number after it, or is the first.
    """
    create function journal_entry_linked() returns trigger language plpgsql as $$
    begin
        if new.sequence = 1 then
            if new.previous_hash <> decode(repeat('00', 32), 'hex') then
                raise exception 'the first entry follows nothing' using errcode = 'integrity_constraint_violation';
            end if;
        elsif not exists (
            select from journal_entry
            where plan_id = new.plan_id and sequence = new.sequence - 1 and entry_hash = new.previous_hash and type <> 'plan.closed'
        ) then
            raise exception 'an entry follows the one before it, and nothing follows a seal'
                using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger journal_entry_linked before insert on journal_entry for each row execute function journal_entry_linked()
    """,
    """
    create function journal_entry_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'the journal is append-only' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create trigger journal_entry_stays before update or delete on journal_entry
        for each row execute function journal_entry_stays()
    """,
    """
    create trigger journal_entry_never_truncated before truncate on journal_entry
        for each statement execute function journal_entry_stays()
    """,
    # ALWAYS: they fire for replication sessions too, so that not even their setting opens a way around.
    "alter table journal_entry enable always trigger journal_entry_stays",
    "alter table journal_entry enable always trigger journal_entry_never_truncated",
    """
    create table journal_counter (
        singleton boolean primary key default true check (singleton),
        next_position bigint not null,
        incarnation text not null
    )
    """,
    "insert into journal_counter (next_position, incarnation) values (1, gen_random_uuid()::text)",
)


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in (*schema.V1_UPGRADE, *STATEMENTS):
        op.execute(statement)
    for statement in (
        *schema.grants(role),
        f"grant select, insert, update on journal_chain to {role}",
        f"grant select, insert on journal_entry to {role}",
        f"grant select, update on journal_counter to {role}",
    ):
        op.execute(statement)
