"""The declared schema of the ledger."""

from __future__ import annotations

import sqlalchemy as sa


def ledger_tables(metadata: sa.MetaData) -> None:
    """Declare the ledger's tables in the service's metadata."""
    moment = sa.DateTime(timezone=True)
    sa.Table(
        "ledger_head",
        metadata,
        sa.Column("ledger", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("hash", sa.LargeBinary, nullable=False, server_default=sa.text("decode(repeat('00', 32), 'hex')")),
        sa.PrimaryKeyConstraint("ledger", name="ledger_head_pkey"),
    )
    sa.Table(
        "ledger_account",
        metadata,
        sa.Column("ledger", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("credit_limit", sa.BigInteger),
        sa.Column("balance", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("opened_at", moment, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("ledger", "account", name="ledger_account_pkey"),
    )
    entry = sa.Table(
        "ledger_entry",
        metadata,
        sa.Column("ledger", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("reference", "kind", "uetr", "debit", "credit")),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", moment, nullable=False),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("previous", "content", "hash")),
        sa.PrimaryKeyConstraint("ledger", "sequence", name="ledger_entry_pkey"),
        sa.UniqueConstraint("ledger", "reference", name="ledger_entry_reference"),
    )
    sa.Index("ledger_entry_uetr", entry.c.uetr)
    sa.Index("ledger_entry_recorded", entry.c.recorded_at)
    for name, account, kind in (
        ("ledger_entry_settled", entry.c.credit, "SETTLED"),
        ("ledger_entry_returned", entry.c.debit, "RETURNED"),
    ):
        sa.Index(name, entry.c.ledger, account, entry.c.sequence, postgresql_where=entry.c.kind == kind)
