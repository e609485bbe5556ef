"""Undertakings: one for a leg for life, with the issuance as it was drawn up and what the bank has said of it."""

from __future__ import annotations

from alembic import context, op

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    # The issuance is kept before it is sent. A leg that was given up before it was prepared has none.
    """
    create table bank_undertaking (
        plan_id text not null,
        leg_id text not null,
        uetr text not null constraint bank_undertaking_uetr_form check (uetr ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'),
        reference text not null constraint bank_undertaking_reference_form check (reference = replace(uetr, '-', '')),
        number text not null,
        issuance_id text,
        issuance bytea,
        issuance_sha256 bytea constraint bank_undertaking_hash check (length(issuance_sha256) = 32),
        status jsonb not null,
        asked_at timestamptz not null default clock_timestamp(),
        inquiries integer not null default 0 check (inquiries >= 0),
        inquiries_since timestamptz,
        inquired_at timestamptz,
        constraint bank_undertaking_pkey primary key (plan_id, leg_id),
        constraint bank_undertaking_uetr_key unique (uetr),
        constraint bank_undertaking_reference_key unique (reference),
        constraint bank_undertaking_number_key unique (number),
        constraint bank_undertaking_issuance check (num_nulls(issuance_id, issuance, issuance_sha256) in (0, 3))
    )
    """,
    # What was drawn up is what is issued.
    """
    create function bank_undertaking_stays() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'an undertaking is kept' using errcode = 'integrity_constraint_violation';
        end if;
        if (new.plan_id, new.leg_id, new.uetr, new.reference, new.number, new.issuance_id, new.issuance, new.issuance_sha256, new.asked_at)
            is distinct from
            (old.plan_id, old.leg_id, old.uetr, old.reference, old.number, old.issuance_id, old.issuance, old.issuance_sha256, old.asked_at)
        then
            raise exception 'what was drawn up does not change' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger bank_undertaking_stays before update or delete on bank_undertaking for each row execute function bank_undertaking_stays()",
)


def upgrade() -> None:
    """Make the table, and grant the service's role what it needs of it."""
    role = context.config.attributes["role"]
    granted = "select, insert, update (status, inquiries, inquiries_since, inquired_at)"
    for statement in (*STATEMENTS, f"grant {granted} on bank_undertaking to {role}"):
        op.execute(statement)
