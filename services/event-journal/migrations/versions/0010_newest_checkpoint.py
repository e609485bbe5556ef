"""That a checkpoint is larger than those before it is asked of the newest alone.

Whether any is as large is what the function asked before, which the database answers by going through all of them: it expects to find one soon.
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"

STATEMENT = """
create or replace function journal_checkpoint_follows() returns trigger language plpgsql as $$
begin
    -- Under the tree's lock, so that two that are made at one time are seen by one another.
    perform from journal_tree where tree_size >= new.tree_size for update;
    if not found then
        raise exception 'a checkpoint is of a tree that there is' using errcode = 'integrity_constraint_violation';
    end if;
    if new.tree_size <= (select max(tree_size) from journal_checkpoint) then
        raise exception 'a checkpoint is larger than those before it' using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$
"""


def upgrade() -> None:
    """Write the function anew; the rule is the same."""
    op.execute(STATEMENT)
