"""`python -m bank_gateway.migrate`: bring the database to the newest revision."""

from __future__ import annotations

from pathlib import Path

from lockstep_kit import migrate

MIGRATIONS = Path(__file__).parents[2] / "migrations"

if __name__ == "__main__":
    migrate.main(MIGRATIONS)
