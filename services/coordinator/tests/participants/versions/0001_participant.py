"""The participant's tables, as every participant's first migration makes them."""

from alembic import context, op

from lockstep_kit.participant import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in (*schema.V1_UPGRADE, *schema.grants(context.config.attributes["role"])):
        op.execute(statement)
