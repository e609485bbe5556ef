"""The tables of the transaction machine: first migration, grants, and the declared schema.

A service runs `V1_UPGRADE` in a migration of its own, as the owner of its database, then `grants`. The statements are literal, and never change:
a later version is another tuple.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

#: Channel on which a queued transaction is announced.
CHANNEL: Final = "evm_transaction"
#: Channel on which it is announced that a transaction is to be cancelled.
WITHDRAWN_CHANNEL: Final = "evm_withdrawn"

V1_UPGRADE: Final = (
    # One row per account that signs. Its lock makes nonces dense; its lease makes one replica the sender.
    """
    create table evm_signer (
        chain_id bigint not null constraint evm_signer_chain check (chain_id > 0),
        address text not null constraint evm_signer_address check (address ~ '^0x[0-9a-fA-F]{40}$'),
        next_nonce bigint not null constraint evm_signer_nonce check (next_nonce >= 0),
        lease_holder text,
        lease_until timestamptz,
        constraint evm_signer_pkey primary key (chain_id, address),
        constraint evm_signer_lease check ((lease_holder is null) = (lease_until is null))
    )
    """,
    """
    create table evm_transaction (
        id bigint generated always as identity,
        chain_id bigint not null,
        signer text,
        nonce bigint,
        state text not null default 'queued',
        idempotency_key text not null,
        payload_hash bytea not null constraint evm_transaction_payload check (octet_length(payload_hash) = 32),
        to_address text not null constraint evm_transaction_to check (to_address ~ '^0x[0-9a-fA-F]{40}$'),
        data bytea not null,
        value numeric(78, 0) not null constraint evm_transaction_value check (value >= 0),
        gas_limit bigint not null constraint evm_transaction_gas check (gas_limit >= 21000),
        purpose text not null,
        plan_id text,
        leg_id text,
        traceparent text,
        cancel_requested boolean not null default false,
        transaction_hash bytea,
        block_number bigint,
        block_hash bytea,
        gas_used bigint,
        effective_gas_price numeric(78, 0),
        detail text not null default '',
        evidence jsonb,
        created_at timestamptz not null default clock_timestamp(),
        updated_at timestamptz not null default clock_timestamp(),
        constraint evm_transaction_pkey primary key (id),
        constraint evm_transaction_key unique (idempotency_key),
        constraint evm_transaction_nonce unique (chain_id, signer, nonce),
        constraint evm_transaction_signer foreign key (chain_id, signer) references evm_signer (chain_id, address),
        constraint evm_transaction_state check (
            state in ('queued', 'signed', 'sent', 'mined', 'final', 'reverted', 'cancelled', 'dead', 'manual')
        ),
        constraint evm_transaction_numbered check ((nonce is null) = (state in ('queued', 'dead'))),
        constraint evm_transaction_signed check ((signer is null) = (nonce is null)),
        constraint evm_transaction_placed check (
            (block_hash is not null) = (state in ('mined', 'final', 'reverted', 'cancelled'))
            and (block_number is null) = (block_hash is null)
            and (transaction_hash is null) = (block_hash is null)
        ),
        constraint evm_transaction_manual check (state <> 'manual' or evidence is not null)
    )
    """,
    "create index evm_transaction_queued on evm_transaction (chain_id, id) where state = 'queued'",
    """
    create index evm_transaction_in_flight on evm_transaction (chain_id, signer, nonce)
    where state in ('signed', 'sent', 'mined')
    """,
    "create index evm_transaction_plan on evm_transaction (plan_id, leg_id)",
    # Every byte string that was ever signed; stored before it is sent, never forgotten.
    """
    create table evm_attempt (
        transaction_id bigint not null,
        number integer not null constraint evm_attempt_number check (number >= 1),
        kind text not null constraint evm_attempt_kind check (kind in ('send', 'bump', 'cancel')),
        transaction_hash bytea not null constraint evm_attempt_hash_length check (octet_length(transaction_hash) = 32),
        raw bytea not null,
        max_fee numeric(78, 0) not null,
        tip numeric(78, 0) not null,
        signed_at timestamptz not null default clock_timestamp(),
        broadcast_at timestamptz,
        broadcast_block bigint,
        answer text,
        constraint evm_attempt_pkey primary key (transaction_id, number),
        constraint evm_attempt_hash unique (transaction_hash),
        constraint evm_attempt_transaction foreign key (transaction_id) references evm_transaction (id),
        constraint evm_attempt_fees check (tip >= 0 and max_fee >= tip)
    )
    """,
    # The same table as lockstep_chain.machine.TRANSITIONS; and what an intent is, and its nonce once given, never changes.
    """
    create function evm_transaction_guard() returns trigger language plpgsql as $$
    begin
        if tg_op = 'INSERT' then
            if new.state <> 'queued' then
                raise exception 'a transaction begins as queued, not %', new.state
                    using errcode = 'check_violation', constraint = 'evm_transaction_transition';
            end if;
            return new;
        end if;
        if new.state <> old.state and (old.state, new.state) not in (
            ('queued', 'signed'), ('queued', 'dead'),
            ('signed', 'sent'), ('signed', 'mined'), ('signed', 'final'), ('signed', 'reverted'), ('signed', 'cancelled'),
            ('signed', 'manual'),
            ('sent', 'mined'), ('sent', 'final'), ('sent', 'reverted'), ('sent', 'cancelled'), ('sent', 'manual'),
            ('mined', 'sent'), ('mined', 'final'), ('mined', 'reverted'), ('mined', 'cancelled'), ('mined', 'manual')
        ) then
            raise exception 'a transaction does not go from % to %', old.state, new.state
                using errcode = 'check_violation', constraint = 'evm_transaction_transition';
        end if;
        if (new.id, new.chain_id, new.idempotency_key, new.payload_hash, new.to_address, new.data, new.value, new.gas_limit)
            is distinct from
           (old.id, old.chain_id, old.idempotency_key, old.payload_hash, old.to_address, old.data, old.value, old.gas_limit)
        or (old.nonce is not null and (new.signer, new.nonce) is distinct from (old.signer, old.nonce)) then
            raise exception 'what a transaction does, and its nonce once given, never change'
                using errcode = 'check_violation', constraint = 'evm_transaction_immutable';
        end if;
        new.updated_at = clock_timestamp();
        return new;
    end
    $$
    """,
    """
    create trigger evm_transaction_guard before insert or update on evm_transaction
    for each row execute function evm_transaction_guard()
    """,
)


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do: nothing is ever deleted, and bytes that were signed are never changed."""
    return (
        f"grant select, insert, update on evm_signer, evm_transaction to {role}",
        f"grant select, insert, update (broadcast_at, broadcast_block, answer) on evm_attempt to {role}",
    )


def transaction_tables(metadata: sa.MetaData) -> None:
    """Declare the tables, as `V1_UPGRADE` makes them."""
    moment = sa.DateTime(timezone=True)
    clock = sa.text("clock_timestamp()")
    sa.Table(
        "evm_signer",
        metadata,
        sa.Column("chain_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("next_nonce", sa.BigInteger, nullable=False),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", moment),
        sa.PrimaryKeyConstraint("chain_id", "address", name="evm_signer_pkey"),
    )
    sa.Table(
        "evm_transaction",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("signer", sa.Text),
        sa.Column("nonce", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'queued'")),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("payload_hash", sa.LargeBinary, nullable=False),
        sa.Column("to_address", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("value", sa.Numeric(78, 0), nullable=False),
        sa.Column("gas_limit", sa.BigInteger, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("plan_id", sa.Text),
        sa.Column("leg_id", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("transaction_hash", sa.LargeBinary),
        sa.Column("block_number", sa.BigInteger),
        sa.Column("block_hash", sa.LargeBinary),
        sa.Column("gas_used", sa.BigInteger),
        sa.Column("effective_gas_price", sa.Numeric(78, 0)),
        sa.Column("detail", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("evidence", pg.JSONB),
        sa.Column("created_at", moment, nullable=False, server_default=clock),
        sa.Column("updated_at", moment, nullable=False, server_default=clock),
        sa.PrimaryKeyConstraint("id", name="evm_transaction_pkey"),
        sa.UniqueConstraint("idempotency_key", name="evm_transaction_key"),
        sa.UniqueConstraint("chain_id", "signer", "nonce", name="evm_transaction_nonce"),
        sa.ForeignKeyConstraint(
            ["chain_id", "signer"], ["evm_signer.chain_id", "evm_signer.address"], name="evm_transaction_signer"
        ),
        sa.Index("evm_transaction_queued", "chain_id", "id", postgresql_where=sa.text("state = 'queued'")),
        sa.Index(
            "evm_transaction_in_flight",
            "chain_id",
            "signer",
            "nonce",
            postgresql_where=sa.text("state in ('signed', 'sent', 'mined')"),
        ),
        sa.Index("evm_transaction_plan", "plan_id", "leg_id"),
    )
    sa.Table(
        "evm_attempt",
        metadata,
        sa.Column("transaction_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("transaction_hash", sa.LargeBinary, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.Column("max_fee", sa.Numeric(78, 0), nullable=False),
        sa.Column("tip", sa.Numeric(78, 0), nullable=False),
        sa.Column("signed_at", moment, nullable=False, server_default=clock),
        sa.Column("broadcast_at", moment),
        sa.Column("broadcast_block", sa.BigInteger),
        sa.Column("answer", sa.Text),
        sa.PrimaryKeyConstraint("transaction_id", "number", name="evm_attempt_pkey"),
        sa.UniqueConstraint("transaction_hash", name="evm_attempt_hash"),
        sa.ForeignKeyConstraint(["transaction_id"], ["evm_transaction.id"], name="evm_attempt_transaction"),
    )
