"""What was final is kept: a chain that takes it back is noticed by the next process too."""

from __future__ import annotations

from alembic import context, op

from lockstep_chain import final_store

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Keep the block that is held to be final, and what persons found about it."""
    for statement in (*final_store.V1_UPGRADE, *final_store.grants(context.config.attributes["role"])):
        op.execute(statement)
