"""A payment's settlement date is kept as it was instructed."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """One more column, empty for older payments and for those that were never instructed here; the service's role can set it and never change it."""
    op.execute("alter table bank_payment add column settlement_date date")
