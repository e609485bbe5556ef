"""The declared schema; migrations make it, and a test shows that both agree."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from bank_gateway.ledger.tables import ledger_tables
from lockstep_kit.participant.schema import participant_tables

METADATA = sa.MetaData()
participant_tables(METADATA)
ledger_tables(METADATA)

_MOMENT = sa.DateTime(timezone=True)
_CLOCK = sa.text("clock_timestamp()")

_PAYMENT = sa.Table(
    "bank_payment",
    METADATA,
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("leg_id", sa.Text, nullable=False),
    sa.Column("uetr", sa.Text, nullable=False),
    sa.Column("status", pg.JSONB, nullable=False),
    sa.Column("asked_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("inquiries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("inquiries_since", _MOMENT),
    sa.Column("inquired_at", _MOMENT),
    sa.Column("end_to_end_id", sa.Text, nullable=False),
    sa.Column("settlement_date", sa.Date),
    sa.Column("on_books", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("stated_by", sa.BigInteger, sa.ForeignKey("bank_statement.id", name="bank_payment_stated_by")),
    sa.Column("profile", sa.Text, nullable=False, server_default="conditional"),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="bank_payment_pkey"),
    sa.UniqueConstraint("uetr", name="bank_payment_uetr_key"),
    sa.UniqueConstraint("end_to_end_id", name="bank_payment_end_to_end_key"),
)
for _name, _account in (("bank_payment_booked", "booking_account"), ("bank_payment_credited", "credited_account")):
    sa.Index(_name, _PAYMENT.c.status.op("->>")(sa.text("'booked_on'")), _PAYMENT.c.status.op("->>")(sa.text(f"'{_account}'")))

sa.Index("bank_payment_returned", _PAYMENT.c.uetr, postgresql_where=sa.text("status ? 'returned_on'"))

sa.Table(
    "bank_message",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("uetr", sa.Text),
    sa.Column("octets", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.PrimaryKeyConstraint("id", name="bank_message_pkey"),
    sa.UniqueConstraint("direction", "message_id", "sha256", name="bank_message_once"),
)

_OUTBOX = sa.Table(
    "bank_outbox",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("leg_id", sa.Text, nullable=False),
    sa.Column("uetr", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text, nullable=False),
    sa.Column("octets", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="QUEUED"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("failure", sa.Text, nullable=False, server_default=""),
    sa.Column("traceparent", sa.Text),
    sa.PrimaryKeyConstraint("id", name="bank_outbox_pkey"),
    sa.UniqueConstraint("action", "idempotency_key", name="bank_outbox_key"),
)
sa.Index("bank_outbox_due", _OUTBOX.c.due_at, postgresql_where=sa.text("state in ('QUEUED', 'SENT')"))
sa.Index("bank_outbox_acked", _OUTBOX.c.id, postgresql_where=sa.text("state = 'ACKED'"))
sa.Index("bank_outbox_sent", _OUTBOX.c.id, postgresql_where=sa.text("state = 'SENT'"))

sa.Table(
    "bank_draft",
    METADATA,
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("leg_id", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("octets", sa.LargeBinary, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False, server_default="KEPT"),
    sa.Column("kept_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("moved_at", _MOMENT),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="bank_draft_pkey"),
    sa.UniqueConstraint("message_id", name="bank_draft_message_key"),
)

sa.Table(
    "bank_mailbox",
    METADATA,
    sa.Column("counterparty", sa.Text, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("counterparty", name="bank_mailbox_pkey"),
)

sa.Table(
    "bank_quarantine",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("counterparty", sa.Text, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("octets", sa.LargeBinary, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("recorded_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.PrimaryKeyConstraint("id", name="bank_quarantine_pkey"),
    sa.UniqueConstraint("counterparty", "cursor", name="bank_quarantine_once"),
)

_RELEASE = sa.Table(
    "bank_quarantine_release",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("quarantine_id", sa.BigInteger, nullable=False),
    sa.Column("released_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("released_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("state", sa.Text, nullable=False, server_default="WAITING"),
    sa.Column("finding", sa.Text),
    sa.Column("ended_at", _MOMENT),
    sa.PrimaryKeyConstraint("id", name="bank_quarantine_release_pkey"),
)
sa.Index("bank_quarantine_release_open", _RELEASE.c.quarantine_id, unique=True, postgresql_where=_RELEASE.c.finding.is_(None))

_MATTER = sa.Table(
    "bank_matter",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("counterparty", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("message_sha256", sa.LargeBinary, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("uetr", sa.Text, nullable=False),
    sa.Column("end_to_end_id", sa.Text, nullable=False),
    sa.Column("plan_id", sa.Text),
    sa.Column("leg_id", sa.Text),
    sa.Column("sentence", sa.Text, nullable=False),
    sa.Column("recorded_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("closed_at", _MOMENT),
    sa.Column("closing", sa.Text, nullable=False, server_default=""),
    sa.PrimaryKeyConstraint("id", name="bank_matter_pkey"),
    sa.UniqueConstraint("message_sha256", "place", name="bank_matter_once"),
)
sa.Index("bank_matter_open_leg", _MATTER.c.plan_id, _MATTER.c.leg_id, postgresql_where=sa.text("closed_at is null"))
sa.Index("bank_matter_open_uetr", _MATTER.c.uetr, postgresql_where=sa.text("closed_at is null"))

sa.Table(
    "bank_undertaking",
    METADATA,
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("leg_id", sa.Text, nullable=False),
    sa.Column("uetr", sa.Text, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("number", sa.Text, nullable=False),
    sa.Column("issuance_id", sa.Text),
    sa.Column("issuance", sa.LargeBinary),
    sa.Column("issuance_sha256", sa.LargeBinary),
    sa.Column("status", pg.JSONB, nullable=False),
    sa.Column("asked_at", _MOMENT, nullable=False, server_default=_CLOCK),
    sa.Column("inquiries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("inquiries_since", _MOMENT),
    sa.Column("inquired_at", _MOMENT),
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="bank_undertaking_pkey"),
    sa.UniqueConstraint("uetr", name="bank_undertaking_uetr_key"),
    sa.UniqueConstraint("reference", name="bank_undertaking_reference_key"),
    sa.UniqueConstraint("number", name="bank_undertaking_number_key"),
)

_STATEMENT = sa.Table(
    "bank_statement",
    METADATA,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("counterparty", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("booking_date", sa.Date, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("statement_id", sa.Text, nullable=False),
    sa.Column("opening", sa.Numeric),
    sa.Column("closing", sa.Numeric),
    sa.Column("whole_at", _MOMENT),
    sa.Column("reconciled_at", _MOMENT),
    sa.Column("ledger_to", sa.BigInteger),
    sa.PrimaryKeyConstraint("id", name="bank_statement_pkey"),
    sa.UniqueConstraint("counterparty", "account", "statement_id", name="bank_statement_once"),
)
sa.Index("bank_statement_day", _STATEMENT.c.account, _STATEMENT.c.booking_date)
sa.Index("bank_statement_due", _STATEMENT.c.number, postgresql_where=sa.text("whole_at is not null and reconciled_at is null"))

sa.Table(
    "bank_statement_page",
    METADATA,
    sa.Column("statement", sa.BigInteger, sa.ForeignKey("bank_statement.id", name="bank_statement_page_statement"), nullable=False),
    sa.Column("page", sa.Integer, nullable=False),
    sa.Column("last", sa.Boolean, nullable=False),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("message_sha256", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("statement", "page", name="bank_statement_page_pkey"),
)

sa.Table(
    "bank_reconciliation",
    METADATA,
    sa.Column("counterparty", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("booking_date", sa.Date, nullable=False),
    sa.Column("statement", sa.BigInteger, sa.ForeignKey("bank_statement.id", name="bank_reconciliation_statement"), nullable=False),
    sa.Column("times", sa.Integer, nullable=False, server_default="1"),
    sa.Column("reconciled_at", _MOMENT, nullable=False, server_default=_CLOCK),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("entries", "matched", "settled", "others", "breaks")),
    sa.PrimaryKeyConstraint("counterparty", "account", "booking_date", name="bank_reconciliation_pkey"),
)

_BREAK = sa.Table(
    "bank_break",
    METADATA,
    sa.Column("matter", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("booking_date", sa.Date, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("asset", sa.Text, nullable=False),
    sa.Column("minor_units", sa.Numeric, nullable=False),
    sa.Column("scale", sa.SmallInteger, nullable=False),
    sa.Column("resolved_by", sa.BigInteger, sa.ForeignKey("bank_statement.id", name="bank_break_resolved_by")),
    sa.PrimaryKeyConstraint("matter", name="bank_break_pkey"),
)
sa.Index("bank_break_day", _BREAK.c.account, _BREAK.c.booking_date)
