"""The table of records of escalations: its migration, grants, and the declared schema. The statements are literal, and never change."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

V1_UPGRADE: Final = (
    # What is said of an escalation, once of each kind: which transaction carries it, and, once that is final, what shows it.
    """
    create table escalation_record (
        escalation_id text not null,
        kind smallint not null constraint escalation_record_kind check (kind in (1, 2)),
        seq bigint generated always as identity,
        plan_id text not null,
        plan_digest bytea not null constraint escalation_record_plan check (octet_length(plan_digest) = 32),
        document_hash bytea not null constraint escalation_record_document check (octet_length(document_hash) = 32),
        record_key bytea not null constraint escalation_record_key check (octet_length(record_key) = 32),
        recorded_at timestamptz not null default clock_timestamp(),
        attempt integer not null default 0 constraint escalation_record_attempt check (attempt >= 0),
        intent_key text,
        ordered_at timestamptz,
        settled boolean not null default false,
        skip_code text not null default '',
        skip_detail text not null default '',
        trouble text not null default '',
        raw_transaction bytea,
        block_number bigint,
        block_hash bytea constraint escalation_record_block check (octet_length(block_hash) = 32),
        placed_at timestamptz,
        constraint escalation_record_pkey primary key (escalation_id, kind),
        constraint escalation_record_seq unique (seq),
        constraint escalation_record_ordered check (
            (attempt = 0) = (intent_key is null) and (intent_key is null) = (ordered_at is null)),
        constraint escalation_record_settled check (intent_key is not null or not settled),
        constraint escalation_record_placed check (num_nulls(block_number, block_hash, placed_at) in (0, 3)),
        constraint escalation_record_shown check (raw_transaction is null or block_hash is not null)
    )
    """,
    "create index escalation_record_waiting on escalation_record (seq) where block_hash is null",
    "create index escalation_record_intent on escalation_record (intent_key)",
    "create index escalation_record_of_plan on escalation_record (plan_id, seq)",
    # What was said never changes, all of it is about one plan, and what shows it is written once.
    """
    create function escalation_record_guard() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if tg_op = 'INSERT' then
            perform pg_advisory_xact_lock(hashtextextended(new.escalation_id, 7332));
            if exists (select from escalation_record where escalation_id = new.escalation_id
                and (plan_id, plan_digest) is distinct from (new.plan_id, new.plan_digest)) then
                broken := 'an escalation is of one plan';
            end if;
        elsif tg_op <> 'UPDATE' then
            broken := 'what was said of an escalation is never forgotten';
        elsif (new.escalation_id, new.kind, new.seq, new.plan_id, new.plan_digest, new.document_hash, new.record_key, new.recorded_at)
            is distinct from (old.escalation_id, old.kind, old.seq, old.plan_id, old.plan_digest, old.document_hash, old.record_key,
                old.recorded_at)
            or new.attempt < old.attempt or old.block_hash is not null then
            broken := 'what was said of an escalation, and what shows it, never change';
        end if;
        if broken is not null then
            raise exception '%', broken using errcode = 'integrity_constraint_violation', constraint = 'escalation_record_kept';
        end if;
        return new;
    end $$
    """,
    """
    create trigger escalation_record_guard before insert or update or delete on escalation_record
        for each row execute function escalation_record_guard()
    """,
    """
    create trigger escalation_record_stays before truncate on escalation_record
        for each statement execute function escalation_record_guard()
    """,
    # ALWAYS: they fire for replication sessions too.
    "alter table escalation_record enable always trigger escalation_record_guard",
    "alter table escalation_record enable always trigger escalation_record_stays",
)

#: What changes of a record.
_COLUMNS: Final = """attempt, intent_key, ordered_at, settled, skip_code, skip_detail, trouble, raw_transaction, block_number, block_hash,
    placed_at"""


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do: nothing is ever deleted, and what was said is never changed."""
    return (
        f"grant select, insert on escalation_record to {role}",
        f"grant update ({_COLUMNS}) on escalation_record to {role}",
    )


def escalation_tables(metadata: sa.MetaData) -> None:
    """Declare the table, as `V1_UPGRADE` makes it."""
    moment, empty = sa.DateTime(timezone=True), sa.text("''")
    table = sa.Table(
        "escalation_record",
        metadata,
        sa.Column("escalation_id", sa.Text, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("plan_id", sa.Text, nullable=False),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("plan_digest", "document_hash", "record_key")),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("intent_key", sa.Text),
        sa.Column("ordered_at", moment),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        *(sa.Column(name, sa.Text, nullable=False, server_default=empty) for name in ("skip_code", "skip_detail", "trouble")),
        sa.Column("raw_transaction", sa.LargeBinary),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.LargeBinary),
        sa.Column("placed_at", moment),
        sa.PrimaryKeyConstraint("escalation_id", "kind", name="escalation_record_pkey"),
        sa.UniqueConstraint("seq", name="escalation_record_seq"),
        sa.Index("escalation_record_intent", "intent_key"),
        sa.Index("escalation_record_of_plan", "plan_id", "seq"),
    )
    sa.Index("escalation_record_waiting", table.c.seq, postgresql_where=table.c.block_hash.is_(None))
