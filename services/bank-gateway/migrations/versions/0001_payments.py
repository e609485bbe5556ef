"""Payments, the messages that were exchanged about them, what is to be sent, and the participant's tables."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit.participant import schema

revision = "0001"
down_revision = None

STATEMENTS = (
    # One payment per leg for life; its references never change.
    """
    create table bank_payment (
        plan_id text not null,
        leg_id text not null,
        uetr text not null constraint bank_payment_uetr_form check (uetr ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'),
        status jsonb not null,
        asked_at timestamptz not null default clock_timestamp(),
        inquiries integer not null default 0 check (inquiries >= 0),
        inquiries_since timestamptz,
        constraint bank_payment_pkey primary key (plan_id, leg_id),
        constraint bank_payment_uetr_key unique (uetr)
    )
    """,
    # Every message as it went over the wire, byte for byte.
    """
    create table bank_message (
        id bigint generated always as identity,
        direction text not null constraint bank_message_direction check (direction in ('OUT', 'IN')),
        message_id text not null,
        kind text not null,
        uetr text,
        octets bytea not null,
        sha256 bytea not null constraint bank_message_hash check (sha256 = sha256(octets)),
        recorded_at timestamptz not null default clock_timestamp(),
        constraint bank_message_pkey primary key (id),
        constraint bank_message_once unique (direction, message_id, sha256)
    )
    """,
    """
    create function bank_record_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'what went over the wire is kept as it was' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create trigger bank_message_stays before update or delete or truncate on bank_message
        for each statement execute function bank_record_stays()
    """,
    # What is to be sent. A row is written in the transaction that decides on it.
    """
    create table bank_outbox (
        id bigint generated always as identity,
        plan_id text not null,
        leg_id text not null,
        uetr text not null,
        action text not null constraint bank_outbox_action check (action in ('SEND', 'RELEASE')),
        idempotency_key text not null,
        octets bytea not null,
        state text not null default 'QUEUED' constraint bank_outbox_state check (state in ('QUEUED', 'SENT', 'ACKED', 'FAILED')),
        attempts integer not null default 0 check (attempts >= 0),
        due_at timestamptz not null default clock_timestamp(),
        failure text not null default '',
        traceparent text,
        constraint bank_outbox_pkey primary key (id),
        constraint bank_outbox_key unique (action, idempotency_key)
    )
    """,
    "create index bank_outbox_due on bank_outbox (due_at) where state in ('QUEUED', 'SENT')",
    # QUEUED: not tried. SENT: tried, nobody knows. ACKED: the bank has it. FAILED: the bank will never take it. No way back.
    """
    create function bank_outbox_moves() returns trigger language plpgsql as $$
    begin
        if (old.state, new.state) not in (('QUEUED', 'SENT'), ('SENT', 'SENT'), ('SENT', 'ACKED'), ('SENT', 'FAILED'))
            or new.octets <> old.octets or new.idempotency_key <> old.idempotency_key or new.action <> old.action or new.uetr <> old.uetr
        then
            raise exception 'a message goes from % to % never', old.state, new.state using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger bank_outbox_moves before update on bank_outbox for each row execute function bank_outbox_moves()",
    """
    create table bank_mailbox (
        counterparty text not null,
        cursor bigint not null check (cursor >= 0),
        constraint bank_mailbox_pkey primary key (counterparty)
    )
    """,
    """
    create table bank_quarantine (
        id bigint generated always as identity,
        counterparty text not null,
        cursor bigint not null,
        octets bytea not null,
        field text not null,
        rule text not null,
        recorded_at timestamptz not null default clock_timestamp(),
        constraint bank_quarantine_pkey primary key (id),
        constraint bank_quarantine_once unique (counterparty, cursor)
    )
    """,
    """
    create trigger bank_quarantine_stays before update or delete or truncate on bank_quarantine
        for each statement execute function bank_record_stays()
    """,
)


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in (*schema.V1_UPGRADE, *STATEMENTS):
        op.execute(statement)
    for statement in (
        *schema.grants(role),
        f"grant select, insert, update (status, inquiries, inquiries_since) on bank_payment to {role}",
        f"grant select, insert on bank_message to {role}",
        f"grant select, insert, update (state, attempts, due_at, failure) on bank_outbox to {role}",
        f"grant select, insert, update (cursor) on bank_mailbox to {role}",
        f"grant select, insert on bank_quarantine to {role}",
    ):
        op.execute(statement)
