"""Quorums: how many persons a plan's gates take; plans accepted before take one each."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    """
    alter table plan
        add column approvals_needed smallint not null default 1 check (approvals_needed between 1 and 7),
        add column releases_needed smallint not null default 1 check (releases_needed between 1 and 7),
        add column validations_needed smallint not null default 1 check (validations_needed between 1 and 7)
    """,
    """
    create function plan_quorum_kept() returns trigger language plpgsql as $$
    begin
        raise exception 'how many persons a plan takes never changes (plan %)', new.plan_id
            using errcode = 'integrity_constraint_violation', constraint = 'plan_quorum_kept';
    end $$
    """,
    """
    create trigger plan_quorum_kept before update on plan for each row
        when ((new.approvals_needed, new.releases_needed, new.validations_needed)
            is distinct from (old.approvals_needed, old.releases_needed, old.validations_needed))
        execute function plan_quorum_kept()
    """,
)


def upgrade() -> None:
    """Keep how many persons a plan takes."""
    for statement in STATEMENTS:
        op.execute(statement)
