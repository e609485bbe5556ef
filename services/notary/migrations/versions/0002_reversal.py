"""Reversals: an executed leg can be undone, once for each order."""

from __future__ import annotations

from alembic import op

from lockstep_chain import leg_store
from lockstep_kit.participant import schema

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Let the fence's graph reach REVERSING and REVERSED."""
    for statement in (*schema.V2_UPGRADE, *leg_store.V2_UPGRADE):
        op.execute(statement)
