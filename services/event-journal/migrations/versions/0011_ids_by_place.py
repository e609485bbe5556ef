"""An event's id is that of its plan and its place in the chain, and no other is taken: the primary key says that each stands once.

What the second index cost grew with the journal: ids lie anywhere in it, so that each entry wrote to a page of its own.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

#: The release before looks entries up by their ids.
STEP = "post"


def upgrade() -> None:
    """Drop it."""
    op.execute("alter table journal_entry drop constraint journal_entry_event_id_key")
