"""What the database itself refuses, whatever the service's code does."""

from __future__ import annotations

import itertools

import asyncpg
import pytest
import sqlalchemy as sa

from lockstep_kit.fence import FINDINGS, TABLE, Action, Phase, Rejected
from lockstep_kit.migrate import differences
from lockstep_kit.participant.schema import V2_STEPS, grants, participant_tables
from lockstep_testkit.databases import TestDatabase

INSERT = """
    insert into participant_leg (plan_id, leg_id, epoch_generation, epoch_counter, revision, phase, digest, plan_digest, binding, decision,
        authority, certificate, vote, outcome, reverse_authority, reversals, reversal, phase_since)
    values ($1, 'leg', 1, 5, 7, $2, $3, $3, 'b', $4, 'a', 'c', 'v', 'o', 'r', array['first'::bytea], 'l', now())
"""


def steps_of_the_fence() -> set[tuple[str, str]]:
    """Every step that the fence's tables, and the restoring of a row, let a leg take."""
    commanded = {(phase or "", str(told)) for (phase, _), told in TABLE.items() if not isinstance(told, Action | Rejected)}
    return commanded | {(str(phase), str(after)) for (phase, _), after in FINDINGS.items()} | {("", "COMMITTING")}


async def place(connection: asyncpg.Connection[asyncpg.Record], plan: str, phase: str | None, decision: str = "DELEGATED") -> None:
    """A row in any phase, put there by the owner with the triggers off."""
    await connection.execute("alter table participant_leg disable trigger user")
    if phase is None:
        await connection.execute(
            "insert into participant_leg (plan_id, leg_id, epoch_generation, epoch_counter, revision) values ($1, 'leg', 1, 5, 0)",
            plan,
        )
    else:
        await connection.execute(INSERT, plan, phase, bytes(32), decision)
    await connection.execute("alter table participant_leg enable trigger user")
    for trigger in ("participant_leg_fenced", "participant_leg_kept"):
        await connection.execute(f"alter table participant_leg enable always trigger {trigger}")


def test_graph_is_the_fence() -> None:
    """The migration's graph of phases is the one that the fence's tables span."""
    assert set(V2_STEPS) == steps_of_the_fence()


async def test_migrated_is_declared(database: TestDatabase) -> None:
    """The migrated schema is the declared one."""
    metadata = sa.MetaData()
    participant_tables(metadata)
    found = await differences(database.owner_url, metadata)
    assert [each for each in found if "alembic_version" not in str(each)] == []


async def test_database_allows_exactly_the_graph(database: TestDatabase) -> None:
    """From every phase to every phase, the database lets pass what the fence does and refuses the rest."""
    steps = steps_of_the_fence()
    async with database.as_owner() as owner, database.as_role() as role:
        for number, (before, after) in enumerate(itertools.product([None, *Phase], Phase)):
            if before == after:
                continue
            plan = f"plan-{number}"
            await place(owner, plan, before)
            update = """
                update participant_leg set phase = $2, revision = revision + 1, digest = coalesce(digest, $3), plan_digest = $3,
                    binding = 'b', phase_since = now(), decision = 'DELEGATED', authority = 'a', certificate = 'c', vote = 'v',
                    outcome = 'o', reverse_authority = 'r', reversal = 'l',
                    reversals = case when $2 = 'REVERSING' then reversals || 'next'::bytea else reversals end
                where plan_id = $1
            """
            if (before or "", str(after)) in steps:
                assert await role.execute(update, plan, after, bytes(32)) == "UPDATE 1"
            else:
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await role.execute(update, plan, after, bytes(32))
        for phase in Phase:
            plan = f"insert-{phase}"
            if ("", str(phase)) in steps:
                await role.execute(INSERT, plan, phase, bytes(32), "COMMIT")
            else:
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await role.execute(INSERT, plan, phase, bytes(32), "COMMIT")


async def test_no_way_back_after_commit(database: TestDatabase) -> None:
    """A leg that was told to commit, not by delegation, cannot be released in the database either."""
    async with database.as_owner() as owner, database.as_role() as role:
        await place(owner, "plan", "COMMITTING", "COMMIT")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="no way back"):
            await role.execute("update participant_leg set phase = 'ABORTING', revision = 8 where plan_id = 'plan'")


@pytest.mark.parametrize(
    "change",
    [
        "revision = 6",
        "epoch_generation = 1, epoch_counter = 4",
        "digest = sha256('other')",
        "binding = 'other'",
        "vote = 'other'",
        "vote = null",
        "plan_id = 'other'",
        "phase = 'REFUSED'",
        "phase = null",
    ],
)
async def test_what_never_changes(database: TestDatabase, change: str) -> None:
    """Revision and epoch never go down, binding and vote never change, a phase never changes without the revision."""
    async with database.as_owner() as owner, database.as_role() as role:
        await place(owner, "plan", "PREPARED")
        before = await role.fetchrow("select * from participant_leg")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await role.execute(f"update participant_leg set {change}")
        assert await role.fetchrow("select * from participant_leg") == before


@pytest.mark.parametrize("before", ["COMMITTED", "REVERSING", "REVERSED"])
@pytest.mark.parametrize(
    "change",
    [
        "outcome = 'other'",
        "outcome = null",
        "reversals = '{}'",
        "reversals = array['other'::bytea]",
        "reversals = reversals || 'first'::bytea",
        "phase = 'REVERSING', revision = revision + 1, reversals = reversals || 'first'::bytea",
        "phase = 'REVERSING', revision = revision + 1, reversals = array['next'::bytea]",
    ],
)
async def test_what_reversals_never_change(database: TestDatabase, before: str, change: str) -> None:
    """An executed leg's outcome stays, and no order to reverse is forgotten, slipped in, or begun a second time."""
    async with database.as_owner() as owner, database.as_role() as role:
        await place(owner, "plan", before)
        row = await role.fetchrow("select * from participant_leg")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await role.execute(f"update participant_leg set {change}")
        assert await role.fetchrow("select * from participant_leg") == row


async def test_newer_generation_with_lower_counter(database: TestDatabase) -> None:
    """An epoch is compared by generation first."""
    async with database.as_owner() as owner, database.as_role() as role:
        await place(owner, "plan", "PREPARED")
        assert await role.execute("update participant_leg set epoch_generation = 2, epoch_counter = 1") == "UPDATE 1"


async def test_executed_leg_stays(database: TestDatabase) -> None:
    """Not even the owner deletes an executed leg or empties the table; a tombstone may be deleted by the owner alone."""
    async with database.as_owner() as owner, database.as_role() as role:
        executed = ("COMMITTED", "REVERSING", "REVERSED")
        for phase in executed:
            await place(owner, phase, phase)
        await place(owner, "released", "RELEASED")
        for statement in (
            *(f"delete from participant_leg where plan_id = '{each}'" for each in executed),
            "truncate participant_leg",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="for ever"):
                await owner.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("delete from participant_leg where plan_id = 'released'")
        assert await owner.execute("delete from participant_leg where plan_id = 'released'") == "DELETE 1"


async def test_only_changes_are_numbered(database: TestDatabase) -> None:
    """The service's role can neither write the outcome log nor its counter: numbers come from changes alone."""
    async with database.as_role() as role:
        for statement in (
            "insert into participant_outcome_log values (1, 'p', 'l', 1, now())",
            "update participant_outcome_counter set next_sequence = 1",
            "delete from participant_outcome_log",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)


def test_grants_take_names_only() -> None:
    """A role's name cannot smuggle in another statement."""
    with pytest.raises(ValueError, match="no name of a role"):
        grants("bank; drop table participant_leg")
