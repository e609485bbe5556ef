"""Reversals: participants' answers to orders to reverse, and the refusal on which a plan's own policy unwinds it."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    "alter table plan_leg add column reversal bytea",
    "alter table plan add column unwind_refusal bytea",
    "alter table leg_command drop constraint leg_command_authorised",
    """
    alter table leg_command add constraint leg_command_authorised check (
        command not in ('ABORT', 'REVERSE') or authority is not null)
    """,
)


def upgrade() -> None:
    """Add what is kept of reversals."""
    for statement in STATEMENTS:
        op.execute(statement)
