"""Statements are compared with the ledger: up to which entry each was, and where what was booked, and booked back, is found."""

from __future__ import annotations

from alembic import context, op

revision = "0012"
down_revision = "0011"

STATEMENTS = (
    # The last entry of the ledger that the statement was compared with. What was posted before there was such a comparison is not gone through again.
    "alter table bank_statement add column ledger_to bigint check (ledger_to >= 0)",
    """
    update bank_statement as stated set ledger_to = coalesce((
        select max(entry.sequence) from ledger_entry as entry join ledger_account as account using (ledger)
        where account.account = stated.account || '/SETTLED' and entry.recorded_at <= stated.reconciled_at), 0)
    where reconciled_at is not null
    """,
    "create index bank_payment_returned on bank_payment (uetr) where status ? 'returned_on'",
    "create index ledger_entry_settled on ledger_entry (ledger, credit, sequence) where kind = 'SETTLED'",
    "create index ledger_entry_returned on ledger_entry (ledger, debit, sequence) where kind = 'RETURNED'",
)


def upgrade() -> None:
    """Add the column and the indexes."""
    role = context.config.attributes["role"]
    for statement in (*STATEMENTS, f"grant update (ledger_to) on bank_statement to {role}"):
        op.execute(statement)
