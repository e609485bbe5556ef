"""Records of escalations: what is said of them, and its way onto the chain."""

from __future__ import annotations

from alembic import context, op

from notary.escalations import schema

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table, and grant the service's role what it needs of it."""
    for statement in (*schema.V1_UPGRADE, *schema.grants(context.config.attributes["role"])):
        op.execute(statement)
