"""Runs the migrations of a scripted participant."""

import sqlalchemy as sa

from lockstep_kit.migrate import run_env
from lockstep_kit.participant.schema import participant_tables

metadata = sa.MetaData()
participant_tables(metadata)
run_env(metadata)
