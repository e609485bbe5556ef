"""An entry's row stays whole as long as it fits into a page: what is encrypted does not become shorter, and to move it out is to write it twice."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    "alter table journal_entry set (toast_tuple_target = 8160)",
    "alter table journal_entry alter column payload set storage external",
)


def upgrade() -> None:
    """Tell the database so; rows that are written from now on are laid out like this, the others stay as they are."""
    for statement in STATEMENTS:
        op.execute(statement)
