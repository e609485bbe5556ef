"""Runs this service's migrations."""

from lockstep_kit.migrate import run_env
from notary.tables import METADATA

run_env(METADATA)
