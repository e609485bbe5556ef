"""Payloads are encrypted, each plan's under a key of its own, so that a plan's can be erased while chain, tree and proofs stay whole.

Rows of before stay as they are: they have no nonce, and their payload is plain. What writes such rows still may, while new code is rolled out.
"""

from __future__ import annotations

from alembic import context, op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """
    alter table journal_entry
        add column payload_hash bytea check (octet_length(payload_hash) = 32),
        add column payload_nonce bytea check (octet_length(payload_nonce) = 12),
        add constraint journal_entry_hash_kept check (payload_nonce is null or payload_hash is not null)
    """,
    """
    create table journal_payload_key (
        plan_id text primary key,
        wrapped_key bytea not null check (octet_length(wrapped_key) = 60),
        wrapping_key_id text not null check (wrapping_key_id ~ '^[0-9a-f]{16}$'),
        recorded_at timestamptz not null default now()
    )
    """,
    "create index journal_payload_key_wrapping on journal_payload_key (wrapping_key_id)",
    """
    create table journal_erasure (
        plan_id text primary key,
        erased_by text not null check (length(erased_by) between 1 and 128),
        reason text not null check (length(reason) between 1 and 1000),
        erased_at timestamptz not null default clock_timestamp()
    )
    """,
    # What was erased stays recorded, whoever asks.
    """
    create trigger journal_erasure_stays before update or delete on journal_erasure
        for each row execute function journal_entry_stays()
    """,
    """
    create trigger journal_erasure_never_truncated before truncate on journal_erasure
        for each statement execute function journal_entry_stays()
    """,
    "alter table journal_erasure enable always trigger journal_erasure_stays",
    "alter table journal_erasure enable always trigger journal_erasure_never_truncated",
    # A key goes only with a record of who erased the plan; else it may be wrapped anew, and nothing more.
    """
    create function journal_payload_key_kept() returns trigger language plpgsql as $$
    begin
        if tg_op = 'UPDATE' and new.plan_id = old.plan_id and new.recorded_at = old.recorded_at then
            return new;
        end if;
        if tg_op = 'DELETE' then
            if exists (select from journal_erasure where plan_id = old.plan_id) then
                return old;
            end if;
        end if;
        raise exception 'a payload key goes only when its plan is erased' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create trigger journal_payload_key_kept before update or delete on journal_payload_key
        for each row execute function journal_payload_key_kept()
    """,
    """
    create trigger journal_payload_key_never_truncated before truncate on journal_payload_key
        for each statement execute function journal_entry_stays()
    """,
    "alter table journal_payload_key enable always trigger journal_payload_key_kept",
    "alter table journal_payload_key enable always trigger journal_payload_key_never_truncated",
    # A payload that stands plain is emptied when its plan is erased, its hash kept; nothing else of an entry ever changes.
    """
    create or replace function journal_entry_stays() returns trigger language plpgsql as $$
    begin
        if tg_table_name = 'journal_entry' and tg_op = 'UPDATE' then
            if old.payload_nonce is null and old.payload_hash is null and new.payload = '' and new.payload_hash = sha256(old.payload)
                and to_jsonb(new) - '{payload,payload_hash}'::text[] = to_jsonb(old) - '{payload,payload_hash}'::text[]
                and exists (select from journal_erasure where plan_id = old.plan_id)
            then
                return new;
            end if;
        end if;
        raise exception 'the journal is append-only' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    # The one way to erase. False: it was erased before.
    """
    create function journal_erase(erased_plan text, who text, why text) returns boolean language plpgsql as $$
    declare
        chain journal_chain;
    begin
        select * into chain from journal_chain where plan_id = erased_plan for update;
        if not found or chain.entry_count = 0 then
            raise exception 'the journal has no chain of this plan' using errcode = 'no_data_found';
        end if;
        if not chain.sealed then
            raise exception 'only a sealed chain can be erased' using errcode = 'object_not_in_prerequisite_state';
        end if;
        insert into journal_erasure (plan_id, erased_by, reason) values (erased_plan, who, why) on conflict (plan_id) do nothing;
        if not found then
            return false;
        end if;
        delete from journal_payload_key where plan_id = erased_plan;
        update journal_entry set payload_hash = sha256(payload), payload = '' where plan_id = erased_plan and payload_nonce is null;
        return true;
    end $$
    """,
    "revoke execute on function journal_erase(text, text, text) from public",
)


def upgrade() -> None:
    """Keep payloads encrypted, and grant the service's role what it needs: it erases nothing."""
    role = context.config.attributes["role"]
    for statement in (
        *STATEMENTS,
        f"grant select, insert on journal_payload_key to {role}",
        f"grant select on journal_erasure to {role}",
    ):
        op.execute(statement)
