"""The tables of anchors and of plans in batches: first migration, grants, and the declared schema.

The statements are literal, and never change: a later version is another tuple.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

V1_UPGRADE: Final = (
    # A root that is to stand on chain: which transaction carries it, and, once that is final, what shows it.
    """
    create table anchor (
        root bytea not null constraint anchor_root_length check (octet_length(root) = 32),
        kind smallint not null constraint anchor_kind check (kind in (1, 2, 3)),
        tree_size bigint not null constraint anchor_size check (tree_size >= 1),
        requested_at timestamptz not null default clock_timestamp(),
        attempt integer not null default 0 constraint anchor_attempt check (attempt >= 0),
        intent_key text,
        ordered_at timestamptz,
        settled boolean not null default false,
        transaction_hash bytea not null default '',
        skip_code text not null default '',
        skip_detail text not null default '',
        trouble text not null default '',
        raw_transaction bytea,
        block_number bigint,
        block_hash bytea constraint anchor_block_length check (octet_length(block_hash) = 32),
        anchored_at timestamptz,
        constraint anchor_pkey primary key (root),
        constraint anchor_ordered check ((attempt = 0) = (intent_key is null) and (intent_key is null) = (ordered_at is null)),
        constraint anchor_settled check (intent_key is not null or not settled),
        constraint anchor_placed check (num_nulls(block_number, block_hash, anchored_at) in (0, 3)),
        constraint anchor_shown check (raw_transaction is null or block_hash is not null)
    )
    """,
    "create index anchor_waiting on anchor (requested_at, root) where block_hash is null",
    "create index anchor_intent on anchor (intent_key)",
    # What a root is the root of never changes, and what shows it is written once.
    """
    create function anchor_guard() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'an anchor is never forgotten' using errcode = 'integrity_constraint_violation', constraint = 'anchor_kept';
        end if;
        if (new.root, new.kind, new.tree_size, new.requested_at) is distinct from (old.root, old.kind, old.tree_size, old.requested_at)
            or new.attempt < old.attempt or old.block_hash is not null then
            raise exception 'what a root is, and what shows that it is anchored, never change'
                using errcode = 'integrity_constraint_violation', constraint = 'anchor_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger anchor_guard before update or delete on anchor for each row execute function anchor_guard()",
    "create trigger anchor_stays before truncate on anchor for each statement execute function anchor_guard()",
    # A closed batch: its root is an anchor's.
    """
    create table plan_batch (
        id bigint generated always as identity,
        kind smallint not null constraint plan_batch_kind check (kind in (2, 3)),
        root bytea not null,
        tree_size integer not null constraint plan_batch_size check (tree_size >= 1),
        closed_at timestamptz not null default clock_timestamp(),
        constraint plan_batch_pkey primary key (id),
        constraint plan_batch_root unique (root),
        constraint plan_batch_anchor foreign key (root) references anchor (root)
    )
    """,
    # What is said of a plan in a batch: that it is registered, and how it ended; each once.
    """
    create table plan_leaf (
        seq bigint generated always as identity,
        plan_digest bytea not null constraint plan_leaf_digest check (octet_length(plan_digest) = 32),
        kind smallint not null constraint plan_leaf_kind check (kind in (2, 3)),
        plan_id text not null,
        outcome text constraint plan_leaf_outcome check (outcome in ('Committed', 'Aborted', 'Mixed')),
        evidence_digest bytea constraint plan_leaf_evidence check (octet_length(evidence_digest) = 32),
        leaf_data bytea not null,
        recorded_at timestamptz not null default clock_timestamp(),
        batch_id bigint,
        leaf_index integer,
        constraint plan_leaf_pkey primary key (seq),
        constraint plan_leaf_once unique (plan_digest, kind),
        constraint plan_leaf_place unique (batch_id, leaf_index),
        constraint plan_leaf_batch foreign key (batch_id) references plan_batch (id),
        constraint plan_leaf_placed check ((batch_id is null) = (leaf_index is null) and leaf_index >= 0),
        constraint plan_leaf_ended check (num_nulls(outcome, evidence_digest) = case when kind = 3 then 0 else 2 end)
    )
    """,
    "create index plan_leaf_open on plan_leaf (kind, seq) where batch_id is null",
    "create index plan_leaf_plan on plan_leaf (plan_id)",
    # The rules of the NotaryRegistry for plans that have no entry of their own there. Whoever writes about a plan holds its lock, so that of two
    # that contradict one another the second sees the first.
    """
    create function plan_leaf_guard() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if tg_op = 'INSERT' then
            perform pg_advisory_xact_lock(hashtextextended(encode(new.plan_digest, 'hex'), 7331));
            if new.batch_id is not null then
                broken := 'a leaf begins in no batch';
            elsif new.kind = 2 and exists (select from plan_leaf where plan_digest = new.plan_digest and kind = 3) then
                broken := 'a plan that ended is never registered';
            elsif new.kind = 3 and new.outcome <> 'Aborted'
                and not exists (select from plan_leaf where plan_digest = new.plan_digest and kind = 2) then
                broken := 'only an abort needs no registration';
            end if;
        elsif tg_op <> 'UPDATE' then
            broken := 'a leaf is never forgotten';
        elsif (new.seq, new.plan_digest, new.kind, new.plan_id, new.outcome, new.evidence_digest, new.leaf_data, new.recorded_at)
            is distinct from (old.seq, old.plan_digest, old.kind, old.plan_id, old.outcome, old.evidence_digest, old.leaf_data, old.recorded_at)
            or old.batch_id is not null then
            broken := 'what a leaf says, and its place once given, never change';
        end if;
        if broken is not null then
            raise exception '%', broken using errcode = 'integrity_constraint_violation', constraint = 'plan_leaf_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger plan_leaf_guard before insert or update or delete on plan_leaf for each row execute function plan_leaf_guard()",
    "create trigger plan_leaf_stays before truncate on plan_leaf for each statement execute function plan_leaf_guard()",
)


#: What changes of an anchor.
_ANCHOR_COLUMNS: Final = """attempt, intent_key, ordered_at, settled, transaction_hash, skip_code, skip_detail, trouble,
    raw_transaction, block_number, block_hash, anchored_at"""


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do: nothing is ever deleted, and what a root or a leaf says is never changed."""
    return (
        f"grant select, insert on anchor, plan_batch, plan_leaf to {role}",
        f"grant update ({_ANCHOR_COLUMNS}) on anchor to {role}",
        f"grant update (batch_id, leaf_index) on plan_leaf to {role}",
    )


def anchor_tables(metadata: sa.MetaData) -> None:
    """Declare the tables, as `V1_UPGRADE` makes them."""
    moment, clock, empty = sa.DateTime(timezone=True), sa.text("clock_timestamp()"), sa.text("''")
    anchor = sa.Table(
        "anchor",
        metadata,
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("tree_size", sa.BigInteger, nullable=False),
        sa.Column("requested_at", moment, nullable=False, server_default=clock),
        sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("intent_key", sa.Text),
        sa.Column("ordered_at", moment),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("transaction_hash", sa.LargeBinary, nullable=False, server_default=empty),
        *(sa.Column(name, sa.Text, nullable=False, server_default=empty) for name in ("skip_code", "skip_detail", "trouble")),
        sa.Column("raw_transaction", sa.LargeBinary),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.LargeBinary),
        sa.Column("anchored_at", moment),
        sa.PrimaryKeyConstraint("root", name="anchor_pkey"),
        sa.Index("anchor_intent", "intent_key"),
    )
    sa.Index("anchor_waiting", anchor.c.requested_at, anchor.c.root, postgresql_where=anchor.c.block_hash.is_(None))
    sa.Table(
        "plan_batch",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("tree_size", sa.Integer, nullable=False),
        sa.Column("closed_at", moment, nullable=False, server_default=clock),
        sa.PrimaryKeyConstraint("id", name="plan_batch_pkey"),
        sa.UniqueConstraint("root", name="plan_batch_root"),
        sa.ForeignKeyConstraint(["root"], ["anchor.root"], name="plan_batch_anchor"),
    )
    leaf = sa.Table(
        "plan_leaf",
        metadata,
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("plan_digest", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("evidence_digest", sa.LargeBinary),
        sa.Column("leaf_data", sa.LargeBinary, nullable=False),
        sa.Column("recorded_at", moment, nullable=False, server_default=clock),
        sa.Column("batch_id", sa.BigInteger),
        sa.Column("leaf_index", sa.Integer),
        sa.PrimaryKeyConstraint("seq", name="plan_leaf_pkey"),
        sa.UniqueConstraint("plan_digest", "kind", name="plan_leaf_once"),
        sa.UniqueConstraint("batch_id", "leaf_index", name="plan_leaf_place"),
        sa.ForeignKeyConstraint(["batch_id"], ["plan_batch.id"], name="plan_leaf_batch"),
        sa.Index("plan_leaf_plan", "plan_id"),
    )
    sa.Index("plan_leaf_open", leaf.c.kind, leaf.c.seq, postgresql_where=leaf.c.batch_id.is_(None))
