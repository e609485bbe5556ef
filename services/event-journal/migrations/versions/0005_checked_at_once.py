"""Links are checked once for each statement, over all that it inserts; and the journal's keys have a history.

Two entries behind the same one would need the same place, since an entry stands right behind the one that it names: the index over what is named says
nothing that the primary key does not.
"""

from __future__ import annotations

from alembic import context, op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    # Each entry is looked up by its place, whatever the planner thinks of an empty table.
    """
    create function journal_entries_linked() returns trigger language plpgsql set enable_seqscan = off as $$
    begin
        if exists (
            select from appended as entry where entry.previous_hash is distinct from case when entry.sequence = 1
                then decode(repeat('00', 32), 'hex')
                else (
                    select earlier.entry_hash from journal_entry as earlier
                    where earlier.plan_id = entry.plan_id and earlier.sequence = entry.sequence - 1 and earlier.type <> 'plan.closed'
                ) end
        ) then
            raise exception 'an entry follows the one before it, the first nothing, and nothing follows a seal'
                using errcode = 'integrity_constraint_violation';
        end if;
        return null;
    end $$
    """,
    "drop trigger journal_entry_linked on journal_entry",
    "drop function journal_entry_linked()",
    """
    create trigger journal_entry_linked after insert on journal_entry referencing new table as appended
        for each statement execute function journal_entries_linked()
    """,
    "alter table journal_entry drop constraint journal_entry_no_fork",
    """
    create table journal_key (
        number bigint primary key check (number >= 1),
        key_id text not null constraint journal_key_key_id_key unique check (key_id ~ '^[0-9a-f]{16}$'),
        statement bytea not null,
        -- By the key before, which the first does not have.
        previous_signature bytea check (octet_length(previous_signature) = 64),
        own_signature bytea not null check (octet_length(own_signature) = 64),
        recorded_at timestamptz not null default now(),
        check ((number = 1) = (previous_signature is null))
    )
    """,
    """
    create function journal_key_follows() returns trigger language plpgsql as $$
    begin
        if new.number > 1 and not exists (select from journal_key where number = new.number - 1) then
            raise exception 'a key follows the one before it' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger journal_key_follows before insert on journal_key for each row execute function journal_key_follows()",
    """
    create trigger journal_key_stays before update or delete on journal_key for each row execute function journal_entry_stays()
    """,
    """
    create trigger journal_key_never_truncated before truncate on journal_key
        for each statement execute function journal_entry_stays()
    """,
    "alter table journal_key enable always trigger journal_key_stays",
    "alter table journal_key enable always trigger journal_key_never_truncated",
)


def upgrade() -> None:
    """Check links at once, and keep the keys' history, which the service's role only reads."""
    role = context.config.attributes["role"]
    for statement in (*STATEMENTS, f"grant select on journal_key to {role}"):
        op.execute(statement)
