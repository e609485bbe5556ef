"""Each service's statements, of the release before and of this tree, on the schema between the two: after this tree's first step of migrations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest
from alembic.script import ScriptDirectory

from lockstep_testkit.databases import Databases, TestDatabase
from upgrades.accepting import SERVICES, refused, required, statements
from upgrades.laid_out import TREE, Release

#: Of a service's statements so many are whole at the least; the rest are parts that code puts together, or are another service's.
WHOLE_MIN: Final = 20
#: What the code of before cannot live with: each in a table of its own, so that it is seen by itself.
HARM: Final = '''
"""What no release may do before the code of before is gone."""

from __future__ import annotations

from alembic import op

revision = "9999"
down_revision = "{head}"

HARM = (
    "alter table plan_leg rename column phase to leg_phase",
    "alter table request drop column response",
    "revoke insert on escalation_document from {role}",
    "alter table escalation add column harm text not null",
)


def upgrade() -> None:
    for statement in HARM:
        op.execute(statement)
'''


async def accepted(database: TestDatabase, release: Release, package: str) -> dict[str, str]:
    """Those of a service's statements that a database accepts which the release has made itself."""
    asked = statements(release, package)
    not_here = await refused(database, asked)
    whole = {name: text for name, text in asked.items() if name not in not_here}
    assert len(whole) > WHOLE_MIN, not_here
    return whole


async def made(databases: Databases, release: Release, package: str) -> TestDatabase:
    """A database that a release has made."""
    database = await databases.create(f"upgraded_{package}")
    release.migrate(package, database, "all")
    return database


@pytest.mark.parametrize("package", SERVICES)
async def test_both_releases_can_ask_what_they_ask(databases: Databases, before: Release, this: Release, package: str) -> None:
    """After the first step the database accepts every statement of the release before that it accepted, and this tree's; no row needs more columns."""
    database, new = await made(databases, before, package), await databases.create(package)
    old_asks, new_asks = await accepted(database, before, package), await accepted(new, this, package)
    needed = await required(database)
    tables = {each.partition(".")[0] for each in needed}
    this.migrate(package, database, "pre")
    assert await refused(database, old_asks) == {}, before.differences()
    assert await refused(database, new_asks) == {}
    assert {each for each in await required(database) - needed if each.partition(".")[0] in tables} == set()
    for each in (database, new):
        await databases.drop(each)


async def test_what_the_code_of_before_cannot_live_with_is_seen(
    databases: Databases, before: Release, this: Release, tmp_path: Path
) -> None:
    """A first step that renames or drops a column, takes a right away or asks for a new column is found out, each for itself."""
    copy = tmp_path / "coordinator"
    shutil.copytree(TREE / "services" / "coordinator", copy)
    database = await made(databases, before, "coordinator")
    old_asks, needed = await accepted(database, before, "coordinator"), await required(database)
    # In the place of what this tree makes after the release before is gone, which a first step cannot come after.
    known = {each.name for each in (before.folder / "services" / "coordinator" / "migrations" / "versions").glob("*.py")}
    for each in (copy / "migrations" / "versions").glob("*.py"):
        if 'STEP = "post"' in each.read_text() and each.name not in known:
            each.unlink()
    head = ScriptDirectory(str(copy / "migrations")).get_current_head()
    (copy / "migrations" / "versions" / "9999_harm.py").write_text(HARM.format(head=head, role=database.role))
    Release(copy, str(copy / "src")).migrate("coordinator", database, "pre")
    reasons = set((await refused(database, old_asks)).values())
    for reason in ('column "phase"', 'column "response"', "permission denied for table escalation_document"):
        assert any(reason in each for each in reasons), reasons
    assert "escalation.harm" in await required(database) - needed
    await databases.drop(database)
