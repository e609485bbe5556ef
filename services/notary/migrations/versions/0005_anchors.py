"""Anchors: Merkle roots on chain, and plans whose digests and outcomes go there in batches."""

from __future__ import annotations

from alembic import context, op

from notary.anchors import schema

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    for statement in (*schema.V1_UPGRADE, *schema.grants(context.config.attributes["role"])):
        op.execute(statement)
