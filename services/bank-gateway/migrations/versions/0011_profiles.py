"""How each payment is promised and made; payments that are kept unsent until their legs are committed; returns of payments are open matters."""

from __future__ import annotations

from alembic import context, op

revision = "0011"
down_revision = "0010"

STATEMENTS = (
    # How a payment is promised and made stays what it was when it was asked for, whatever the settings say later.
    """
    alter table bank_payment add column profile text not null default 'conditional'
        constraint bank_payment_profile check (profile in ('conditional', 'reservation', 'plain'))
    """,
    """
    create table bank_draft (
        plan_id text not null,
        leg_id text not null,
        message_id text not null,
        kind text not null constraint bank_draft_kind check (kind in ('pacs.008.001.13', 'pacs.009.001.12')),
        octets bytea not null,
        sha256 bytea not null constraint bank_draft_hash check (sha256 = sha256(octets)),
        state text not null default 'KEPT' constraint bank_draft_state check (state in ('KEPT', 'SENT', 'WITHDRAWN')),
        kept_at timestamptz not null default clock_timestamp(),
        moved_at timestamptz,
        constraint bank_draft_pkey primary key (plan_id, leg_id),
        constraint bank_draft_message_key unique (message_id),
        constraint bank_draft_moved check ((state = 'KEPT') = (moved_at is null))
    )
    """,
    # What was withdrawn is never sent, and what was sent stays so.
    """
    create function bank_draft_moves() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'a draft is kept' using errcode = 'integrity_constraint_violation';
        end if;
        if old.state <> 'KEPT' or new.state = 'KEPT'
            or (new.plan_id, new.leg_id, new.message_id, new.kind, new.octets, new.sha256, new.kept_at)
            is distinct from (old.plan_id, old.leg_id, old.message_id, old.kind, old.octets, old.sha256, old.kept_at)
        then
            raise exception 'a draft goes from % to % never', old.state, new.state using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger bank_draft_moves before update or delete on bank_draft for each row execute function bank_draft_moves()",
    "create trigger bank_draft_stays before truncate on bank_draft for each statement execute function bank_record_stays()",
    "alter table bank_matter drop constraint bank_matter_kind",
    """
    alter table bank_matter add constraint bank_matter_kind
        check (kind in ('UNKNOWN_PAYMENT', 'BOOKING_DIFFERS', 'BREAK', 'PAYMENT_RETURNED'))
    """,
)


def upgrade() -> None:
    """Make the table, and grant the service's role what it needs of it."""
    role = context.config.attributes["role"]
    for statement in (*STATEMENTS, f"grant select, insert, update (state, moved_at) on bank_draft to {role}"):
        op.execute(statement)
