"""What changes is written in place: pages keep room for it, and what keeps a row's rules is called only for a row that breaks one.

A condition of a trigger is judged without calling anything (PostgreSQL, "CREATE TRIGGER", WHEN). The functions stay as they are, and say which rule it was.
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

#: Code of the release before could live with it, and needs it as little as this one's: it waits until both are not under way at once.
STEP = "post"

#: How full pages are made by what is new. A leg's row grows to several times its size with the vote and the outcome.
FILLED = {"lease": 50, "plan": 50, "plan_leg": 20, "leg_command": 50, "journal_progress": 50}

STATEMENTS = (
    *(f"alter table {table} set (fillfactor = {percent})" for table, percent in FILLED.items()),
    """
    create or replace trigger plan_kept before update on plan for each row
        when ((new.plan_id, new.seq, new.digest, new.header, new.created_at)
                is distinct from (old.plan_id, old.seq, old.digest, old.header, old.created_at)
            or new.version <= old.version
            or (new.epoch_generation, new.epoch_counter) < (old.epoch_generation, old.epoch_counter)
            or (old.decision is not null and new.decision is distinct from old.decision)
            or (old.decided_at is not null and (new.decided_at, new.delegate) is distinct from (old.decided_at, old.delegate))
            or old.state = 'CLOSED'
            or (old.sealing and not new.sealing))
        execute function plan_kept()
    """,
    """
    create or replace trigger plan_leg_kept before update on plan_leg for each row
        when ((new.plan_id, new.leg_id, new.position, new.leg, new.participant, new.lock)
                is distinct from (old.plan_id, old.leg_id, old.position, old.leg, old.participant, old.lock)
            or new.revision < old.revision
            or (old.vote is not null and new.vote is distinct from old.vote)
            or (old.payer_signature is not null
                and (new.payer_signature, new.permit) is distinct from (old.payer_signature, old.permit)))
        execute function plan_leg_kept()
    """,
    """
    create or replace trigger journal_progress_grows before update on journal_progress for each row
        when (new.plan_id <> old.plan_id or new.recorded < old.recorded or new.appended < old.appended
            or (old.frozen <> '' and new.frozen = ''))
        execute function journal_progress_grows()
    """,
    """
    create or replace trigger lease_epoch_grows before update on lease for each row
        when ((new.generation, new.counter) < (old.generation, old.counter)) execute function lease_epoch_grows()
    """,
    # A plan that stays where it is needs no transition that says so; one that is new, or moves, is still asked about at the commit.
    "drop trigger plan_moved on plan",
    """
    create constraint trigger plan_begun after insert on plan
        deferrable initially deferred for each row execute function plan_moved()
    """,
    """
    create constraint trigger plan_moved after update of state, decision, transition_no on plan
        deferrable initially deferred for each row
        when ((new.state, new.decision, new.transition_no) is distinct from (old.state, old.decision, old.transition_no))
        execute function plan_moved()
    """,
)


def upgrade() -> None:
    """Make room, and have the rules' functions called only where there is something to say."""
    for statement in STATEMENTS:
        op.execute(statement)
