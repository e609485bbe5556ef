"""The service's role can change no more than it has to: what is written once is out of its reach, and so is every function that it does not call."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit.grants import PARTICIPANT_FIXED, PRIVATE_FUNCTIONS, narrow_updates

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Take back what is not needed."""
    role = context.config.attributes["role"]
    for statement in (*narrow_updates(role, PARTICIPANT_FIXED), PRIVATE_FUNCTIONS):
        op.execute(statement)
    # The view of the ledger's audit calculates each link anew, with the rights of who looks.
    for function in (
        "ledger_content(text, text, text, text, text, text, bigint)",
        "ledger_link(bytea, bigint, timestamptz, bytea)",
    ):
        op.execute(f"grant execute on function {function} to {role}")
