"""Which migration a database went through last, and which one the code comes with.

The version table belongs to the database's owner, and the service's role may not read it; its comment can be read by everybody, so that a run of migrations
writes the revision there too.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from lockstep_kit.db import Connection

#: What the comment begins with; the revision follows.
MARK: Final = "revision "

#: The comment of the version table; none where nobody wrote one, or where there is no such table.
RECORDED: Final = "select obj_description(to_regclass('public.alembic_version'), 'pg_class')"


async def recorded(connection: Connection) -> str:
    """The newest migration that the database went through; "" where the last run of migrations did not say."""
    comment: str | None = await connection.fetchval(RECORDED)
    return comment.removeprefix(MARK) if comment and comment.startswith(MARK) else ""


def wanted(package: str) -> str:
    """The newest migration that a service's package comes with; "" where it is installed without them. Reads files.

    Raises:
        alembic.util.CommandError: the migrations have no single newest one.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return ""
    folder = Path(spec.origin).parents[2] / "migrations"
    if not (folder / "versions").is_dir():
        return ""
    # Loads slowly, and is needed by whoever asks alone.
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(folder)).get_current_head() or ""
