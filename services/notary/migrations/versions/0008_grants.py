"""The service's role can change no more than it has to: what is written once is out of its reach, and so is every function that it does not call."""

from __future__ import annotations

from alembic import context, op

from lockstep_chain.grants import CHAIN_FIXED
from lockstep_kit.grants import PARTICIPANT_FIXED, PRIVATE_FUNCTIONS, narrow_updates

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Take back what is not needed."""
    role = context.config.attributes["role"]
    for statement in (*narrow_updates(role, {**PARTICIPANT_FIXED, **CHAIN_FIXED}), PRIVATE_FUNCTIONS):
        op.execute(statement)
