"""Permits: a payer's allowance by signature comes with the leg."""

from __future__ import annotations

from alembic import op

from lockstep_kit.participant import schema

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Keep what a payer signed."""
    for statement in schema.V3_UPGRADE:
        op.execute(statement)
