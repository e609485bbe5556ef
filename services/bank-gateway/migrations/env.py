"""Runs this service's migrations."""

from bank_gateway.tables import METADATA
from lockstep_kit.migrate import run_env

run_env(METADATA)
