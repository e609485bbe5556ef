"""Runs this service's migrations."""

from coordinator.tables import METADATA
from lockstep_kit.migrate import run_env

run_env(METADATA)
