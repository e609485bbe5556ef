"""The service's role can change no more than it has to: what is written once is out of its reach, and so is every function that it does not call."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit.grants import PRIVATE_FUNCTIONS, narrow_updates

revision = "0011"
down_revision = "0010"

#: What of each table is written once.
FIXED = {
    "plan": (
        *("plan_id", "seq", "digest", "header", "traceparent", "created_at", "created_by"),
        *("approvals_needed", "releases_needed", "validations_needed"),
    ),
    "client_quota": ("client",),
    "plan_leg": ("plan_id", "leg_id", "position", "leg", "participant", "lock"),
    "plan_event_counter": ("singleton",),
    "installation": ("singleton",),
    "request": ("request_id", "method", "digest", "asked_at", "client"),
    "lease": ("resource_id",),
    "leg_command": ("plan_id", "leg_id", "command", "participant", "behind_journal"),
    "leg_news": ("plan_id", "leg_id", "participant"),
    "participant_cursor": ("participant",),
    "journal_progress": ("plan_id",),
    "escalation": ("escalation_id", "plan_id", "ordinal", "reason", "leg_id", "detail", "raised_at"),
    "dead_letter": ("dead_letter_id", "plan_id", "leg_id", "command", "participant", "reason", "detail", "attempts", "dead_at"),
    "notice_dead_letter": ("dead_letter_id", "notice_id", "webhook", "attempts", "detail", "dead_at"),
    "notice_outbox": ("id", "destination", "ordering_key", "payload", "traceparent", "created_at"),
    "orphan_leg": ("plan_id", "leg_id", "participant", "found_at"),
    "plan_restore": ("plan_id",),
    "sweep": ("participant",),
    "listed_leg": ("participant", "plan_id", "leg_id"),
    "journal_refill": ("plan_id",),
}

#: A plan's key may be sealed anew by the database's owner, to other keys; it stays that plan's, and the service's role seals once.
RESEALED = (
    """
    create function decision_key_resealed() returns trigger language plpgsql as $$
    begin
        if new.plan_id is distinct from old.plan_id
            or (new.service_key_id, new.recovery_key_id) is not distinct from (old.service_key_id, old.recovery_key_id) then
            raise exception 'a key is sealed anew to another key, for its own plan'
                using errcode = 'integrity_constraint_violation', constraint = 'decision_key_resealed';
        end if;
        return new;
    end $$
    """,
    "drop trigger decision_key_stays on decision_key",
    "create trigger decision_key_stays before delete on decision_key for each row execute function row_stays()",
    "alter table decision_key enable always trigger decision_key_stays",
    "create trigger decision_key_resealed before update on decision_key for each row execute function decision_key_resealed()",
    "alter table decision_key enable always trigger decision_key_resealed",
)


def upgrade() -> None:
    """Take back what is not needed."""
    role = context.config.attributes["role"]
    for statement in (*RESEALED, *narrow_updates(role, FIXED), PRIVATE_FUNCTIONS):
        op.execute(statement)
