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
    sa.Column("payload_hash", sa.LargeBinary),
    sa.Column("payload_nonce", sa.LargeBinary),
    sa.PrimaryKeyConstraint("plan_id", "sequence", name="journal_entry_pkey"),
    sa.UniqueConstraint("position", name="journal_entry_position_key"),
)

JOURNAL_COUNTER = sa.Table(
    "journal_counter",
    METADATA,
    sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("next_position", sa.BigInteger, nullable=False),
    sa.Column("incarnation", sa.Text, nullable=False),
)

JOURNAL_TREE = sa.Table(
    "journal_tree",
    METADATA,
    sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("tree_size", sa.BigInteger, nullable=False),
    sa.Column("log_incarnation", sa.Text, nullable=False),
)

JOURNAL_TILE = sa.Table(
    "journal_tile",
    METADATA,
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("tile_index", sa.BigInteger, nullable=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("level", "tile_index", name="journal_tile_pkey"),
)

JOURNAL_CHECKPOINT = sa.Table(
    "journal_checkpoint",
    METADATA,
    sa.Column("tree_size", sa.BigInteger, nullable=False),
    sa.Column("root_hash", sa.LargeBinary, nullable=False),
    sa.Column("signed_note", sa.LargeBinary, nullable=False),
    sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint("tree_size", name="journal_checkpoint_pkey"),
)

JOURNAL_KEY = sa.Table(
    "journal_key",
    METADATA,
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("statement", sa.LargeBinary, nullable=False),
    sa.Column("previous_signature", sa.LargeBinary),
    sa.Column("own_signature", sa.LargeBinary, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.UniqueConstraint("key_id", name="journal_key_key_id_key"),
)

JOURNAL_PAYLOAD_KEY = sa.Table(
    "journal_payload_key",
    METADATA,
    sa.Column("plan_id", sa.Text, primary_key=True),
    sa.Column("wrapped_key", sa.LargeBinary, nullable=False),
    sa.Column("wrapping_key_id", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("journal_payload_key_wrapping", "wrapping_key_id"),
)

JOURNAL_ERASURE = sa.Table(
    "journal_erasure",
    METADATA,
    sa.Column("plan_id", sa.Text, primary_key=True),
    sa.Column("erased_by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
)
