"""What `plan_write` writes is out of the reach of the service's role, which has it written by that function alone."""

from __future__ import annotations

from alembic import context, op

revision = "0015"
down_revision = "0014"

#: The release before writes by statements of its own.
STEP = "post"

#: Tables to which the role adds nothing itself.
INSERTED = (
    *("gate_signature", "journal_event", "journal_progress", "leg_command", "participant_cursor", "plan_event", "plan_transition"),
)

#: What of each table the role changes no more. Who may lock a plan must have the right to change something of it: `updated_at` is left, and no plan
#: can be changed without its version (`plan_kept`).
CHANGED = {
    "journal_progress": ("recorded",),
    "leg_command": ("authority", "closing", "given_at", "not_after", "traceparent"),
    "participant_cursor": ("incarnation", "sequence"),
    "plan": (
        *("audit", "auditing_since", "cause", "decided_at", "decision", "delegate", "due_at", "epoch_counter", "epoch_generation"),
        *("journal_sequence", "outcome", "reason", "reason_detail", "reason_leg", "sealing", "since", "state", "transition_no"),
        *("unwind_refusal", "unwound_by_policy", "validated_from", "version"),
    ),
    "plan_event_counter": ("next_sequence",),
    "plan_leg": (
        *("last_order", "operators_evidence", "operators_executed", "ordered_at", "outcome", "phase", "reversal", "reversed"),
        *("revision", "trouble", "vote"),
    ),
}


def upgrade() -> None:
    """Take back what is not needed."""
    role = context.config.attributes["role"]
    op.execute(f"revoke insert on {', '.join(INSERTED)} from {role}")
    for table, columns in CHANGED.items():
        op.execute(f"revoke update ({', '.join(columns)}) on {table} from {role}")
