"""A request is written once, with its answer: the service's role changes none."""

from __future__ import annotations

from alembic import context, op

revision = "0012"
down_revision = "0011"

#: The release before writes the answer after the request.
STEP = "post"


def upgrade() -> None:
    """Take back what is not needed."""
    op.execute(f"revoke update (response) on request from {context.config.attributes['role']}")
