"""Permits: a payer's allowance by signature comes with the leg."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

STATEMENTS = (
    "alter table plan_leg add column permit bytea",
    """
    create or replace function plan_leg_kept() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if (new.plan_id, new.leg_id, new.position, new.leg, new.participant, new.lock)
            is distinct from (old.plan_id, old.leg_id, old.position, old.leg, old.participant, old.lock) then
            broken := 'a leg is immutable';
        elsif new.revision < old.revision then
            broken := 'a revision never goes down';
        elsif old.vote is not null and new.vote is distinct from old.vote then
            broken := 'a vote never changes';
        elsif old.payer_signature is not null
            and (new.payer_signature, new.permit) is distinct from (old.payer_signature, old.permit) then
            broken := 'a payer signs once';
        end if;
        if broken is not null then
            raise exception '% (plan %, leg %)', broken, new.plan_id, new.leg_id
                using errcode = 'integrity_constraint_violation', constraint = 'plan_leg_kept';
        end if;
        return new;
    end $$
    """,
)


def upgrade() -> None:
    """Keep what a payer signed."""
    for statement in STATEMENTS:
        op.execute(statement)
