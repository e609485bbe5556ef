"""That what is queued stays as it is, is seen to without looking at its octets at every move."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

STATEMENTS = (
    # A statement that sets one of these columns is refused as a whole: nobody has one to run.
    """
    create trigger bank_outbox_stays before update of plan_id, leg_id, uetr, action, idempotency_key, octets on bank_outbox
        for each statement execute function bank_record_stays()
    """,
    """
    create or replace function bank_outbox_moves() returns trigger language plpgsql as $$
    begin
        if (old.state, new.state) not in (('QUEUED', 'SENT'), ('SENT', 'SENT'), ('SENT', 'ACKED'), ('SENT', 'FAILED'), ('ACKED', 'SETTLED')) then
            raise exception 'a message goes from % to % never', old.state, new.state using errcode = 'integrity_constraint_violation';
        end if;
        if new.state = 'SETTLED' and not exists (
            select from participant_leg as leg where leg.plan_id = new.plan_id and leg.leg_id = new.leg_id
                and leg.phase in ('REFUSED', 'COMMITTED', 'RELEASED', 'REVERSING', 'REVERSED'))
        then
            raise exception 'a message is settled when its leg is at its end' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
)


def upgrade() -> None:
    """Add the trigger, and have the other look at states alone."""
    for statement in STATEMENTS:
        op.execute(statement)
