"""What a bank says that fits no payment, or fits one badly, is an open matter; payments are found by their end-to-end references; questions never stop."""

from __future__ import annotations

import base64
import hashlib

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    "alter table bank_payment alter column end_to_end_id set not null",
    "alter table bank_payment add constraint bank_payment_end_to_end_key unique (end_to_end_id)",
    # One row for each statement of a message: the same message again is the same matter. Only a person, or knowing the payment at last, closes one.
    """
    create table bank_matter (
        id bigint generated always as identity,
        counterparty text not null,
        message_id text not null,
        message_sha256 bytea not null,
        place integer not null check (place >= 0),
        kind text not null constraint bank_matter_kind check (kind in ('UNKNOWN_PAYMENT', 'BOOKING_DIFFERS')),
        uetr text not null,
        end_to_end_id text not null,
        plan_id text,
        leg_id text,
        sentence text not null constraint bank_matter_sentence check (sentence <> ''),
        recorded_at timestamptz not null default clock_timestamp(),
        closed_at timestamptz,
        closing text not null default '',
        constraint bank_matter_pkey primary key (id),
        constraint bank_matter_once unique (message_sha256, place),
        constraint bank_matter_leg check ((plan_id is null) = (leg_id is null)),
        constraint bank_matter_closed check ((closed_at is null) = (closing = ''))
    )
    """,
    "create index bank_matter_open_leg on bank_matter (plan_id, leg_id) where closed_at is null",
    "create index bank_matter_open_uetr on bank_matter (uetr) where closed_at is null",
    # What was said stays; a matter is closed once.
    """
    create function bank_matter_closes() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'a matter is kept' using errcode = 'integrity_constraint_violation';
        end if;
        if old.closed_at is not null or new.closed_at is null
            or (new.id, new.counterparty, new.message_id, new.message_sha256, new.place, new.kind, new.uetr, new.end_to_end_id,
                new.plan_id, new.leg_id, new.sentence, new.recorded_at)
            is distinct from (old.id, old.counterparty, old.message_id, old.message_sha256, old.place, old.kind, old.uetr, old.end_to_end_id,
                old.plan_id, old.leg_id, old.sentence, old.recorded_at)
        then
            raise exception 'a matter is closed once, and nothing else of it changes' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger bank_matter_closes before update or delete on bank_matter for each row execute function bank_matter_closes()",
    "create trigger bank_matter_stays before truncate on bank_matter for each statement execute function bank_record_stays()",
)


def upgrade() -> None:
    """Name the payments that are there, make the table, and grant the service's role what it needs."""
    role = context.config.attributes["role"]
    op.execute("alter table bank_payment add column inquired_at timestamptz")
    op.execute("alter table bank_payment add column end_to_end_id text")
    connection = op.get_bind()
    for plan_id, leg_id in connection.execute(sa.text("select plan_id, leg_id from bank_payment")).all():
        named = {"plan": plan_id, "leg": leg_id, "name": _end_to_end_id(plan_id, leg_id)}
        connection.execute(sa.text("update bank_payment set end_to_end_id = :name where plan_id = :plan and leg_id = :leg"), named)
    for statement in (
        *STATEMENTS,
        f"grant update (inquired_at) on bank_payment to {role}",
        f"grant select, insert, update (closed_at, closing) on bank_matter to {role}",
    ):
        op.execute(statement)


def _end_to_end_id(plan_id: str, leg_id: str) -> str:
    digest = hashlib.sha256(f"E\x1f{plan_id}\x1f{leg_id}".encode()).digest()
    return "E" + base64.b32encode(digest)[:15].decode()
