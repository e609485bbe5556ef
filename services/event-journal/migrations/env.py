"""Runs this service's migrations."""

from event_journal.tables import METADATA
from lockstep_kit.migrate import run_env

run_env(METADATA)
