"""The participant's legs, the transaction machine, and which transaction carries which leg."""

from __future__ import annotations

from alembic import context, op

from lockstep_chain import leg_store
from lockstep_chain import schema as chain_schema
from lockstep_kit.participant import schema as participant_schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in (*participant_schema.V1_UPGRADE, *chain_schema.V1_UPGRADE, *leg_store.V1_UPGRADE):
        op.execute(statement)
    for statement in (*participant_schema.grants(role), *chain_schema.grants(role), *leg_store.grants(role)):
        op.execute(statement)
