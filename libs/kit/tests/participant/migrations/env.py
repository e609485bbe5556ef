import sqlalchemy as sa

from lockstep_kit.migrate import run_env
from lockstep_kit.participant.schema import participant_tables

METADATA = sa.MetaData()
participant_tables(METADATA)
run_env(METADATA)
