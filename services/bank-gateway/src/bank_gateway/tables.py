"""The declared schema; migrations make it, and a test shows that both agree."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from lockstep_kit.participant.schema import participant_tables

METADATA = sa.MetaData()
participant_tables(METADATA)

_MOMENT = sa.DateTime(timezone=True)
_CLOCK = sa.text("clock_timestamp()")

sa.Table(
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
    sa.PrimaryKeyConstraint("plan_id", "leg_id", name="bank_payment_pkey"),
    sa.UniqueConstraint("uetr", name="bank_payment_uetr_key"),
    sa.UniqueConstraint("end_to_end_id", name="bank_payment_end_to_end_key"),
)

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
