"""The witness: checkpoints of the journal's log that were cosigned, and alarms about those that were not."""

from __future__ import annotations

from alembic import context, op

from notary.witness import schema

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the witness's tables, and grant the service's role what it needs of them."""
    for statement in (*schema.V1_UPGRADE, *schema.grants(context.config.attributes["role"])):
        op.execute(statement)
