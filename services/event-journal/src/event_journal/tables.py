"""The journal's declared schema; migrations make it, and a test shows that both agree."""

from __future__ import annotations

import sqlalchemy as sa

from lockstep_kit.participant.schema import participant_tables

METADATA = sa.MetaData()
participant_tables(METADATA)

JOURNAL_CHAIN = sa.Table(
    "journal_chain",
    METADATA,
    sa.Column("plan_id", sa.Text, primary_key=True),
    sa.Column("entry_count", sa.BigInteger, nullable=False),
    sa.Column("head_hash", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.Boolean, nullable=False),
    sa.Column("frozen", sa.Text, nullable=False),
    sa.Column("epoch_generation", sa.BigInteger, nullable=False),
    sa.Column("epoch_counter", sa.BigInteger, nullable=False),
)

JOURNAL_ENTRY = sa.Table(
    "journal_entry",
    METADATA,
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_role", sa.Text, nullable=False),
    sa.Column("event_time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("previous_hash", sa.LargeBinary, nullable=False),
    sa.Column("entry_hash", sa.LargeBinary, nullable=False),
    sa.Column("canonical_bytes", sa.LargeBinary, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.PrimaryKeyConstraint("plan_id", "sequence", name="journal_entry_pkey"),
    sa.UniqueConstraint("position", name="journal_entry_position_key"),
    sa.UniqueConstraint("event_id", name="journal_entry_event_id_key"),
    sa.UniqueConstraint("plan_id", "previous_hash", name="journal_entry_no_fork"),
)

JOURNAL_COUNTER = sa.Table(
    "journal_counter",
    METADATA,
    sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("next_position", sa.BigInteger, nullable=False),
    sa.Column("incarnation", sa.Text, nullable=False),
)
