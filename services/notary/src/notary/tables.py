"""The declared schema; migrations make it, and a test shows that both agree."""

from __future__ import annotations

import sqlalchemy as sa

from lockstep_chain import final_store, leg_store, schema
from lockstep_kit.participant.schema import participant_tables
from notary.anchors.schema import anchor_tables
from notary.escalations.schema import escalation_tables
from notary.witness.schema import witness_tables

METADATA = sa.MetaData()
participant_tables(METADATA)
schema.transaction_tables(METADATA)
final_store.final_tables(METADATA)
leg_store.order_tables(METADATA)
witness_tables(METADATA)
anchor_tables(METADATA)
escalation_tables(METADATA)
