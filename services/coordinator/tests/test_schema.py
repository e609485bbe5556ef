"""The database keeps the promises by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from nacl.public import PrivateKey

from coordinator.columns import METADATA
from coordinator.migrate import MIGRATIONS
from coordinator.protocol import TABLE
from coordinator.sealing import KeyBox, KeySealed
from lockstep_kit.keys import leg_key, lock_of
from lockstep_kit.migrate import differences
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import delivery_versus_payment


def migration() -> ModuleType:
    spec = spec_from_file_location("first", MIGRATIONS / "versions" / "0001_plans.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_arcs_are_the_tables() -> None:
    """The steps that the database lets a plan take are those of the protocol's table."""
    table = {(state, decision or "", arc.state, arc.decision or "") for (state, decision, _), arc in TABLE.items()}
    assert set(migration().V1_ARCS) == table


async def test_migrated_is_declared(database_for: Callable[..., Awaitable[TestDatabase]]) -> None:
    """A migrated database has the declared tables and no others."""
    database = await database_for("coordinator")
    assert await differences(database.owner_url, METADATA) == []


async def test_append_only(world: Any) -> None:
    """Rows of append-only tables are neither changed nor removed: not by the service's role, not by the owner."""
    async with world.coordinator():
        await world.create(delivery_versus_payment())
    async with world.database.as_role() as role, world.database.as_owner() as owner:
        for table in migration().APPEND_ONLY:
            for statement in (f"update {table} set plan_id = 'x'", f"delete from {table}", f"truncate {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await role.execute(statement)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await owner.execute(statement + (" cascade" if "truncate" in statement else ""))
        for table in migration().KEPT:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(f"delete from {table}")
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(f"truncate {table} cascade")


async def test_what_never_changes(world: Any) -> None:
    """A decision is written once, CLOSED is the end, a stale epoch writes nothing: whatever the service's code does."""
    async with world.coordinator():
        plan = await world.settled()
    async with world.database.as_owner() as owner:
        for change, rule in (
            ("decision = 'ABORT'", "a decision is written once"),
            ("decision = null", "a decision is written once"),
            ("delegate = 'cash'", "a decision is written once"),
            ("decided_at = now()", "a decision is written once"),
            ("state = 'EXECUTING'", "CLOSED is the end"),
            ("outcome = 'MIXED'", "CLOSED is the end"),
            (r"header = '\x00'", "a plan is immutable"),
            ("sealing = false", "stays sealed"),
            ("epoch_counter = 0", "lost its lease"),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=rule):
                await owner.execute(f"update plan set {change}, version = version + 1 where plan_id = $1", plan.plan_id)
        for statement, rule in (
            ("update plan set reason = 'X' where plan_id = $1", "a version grows"),
            ("update plan set transition_no = transition_no + 1, version = version + 1 where plan_id = $1", "CLOSED is the end"),
            ("update journal_progress set appended = appended - 1 where plan_id = $1", "stays appended"),
            ("update journal_progress set recorded = recorded - 1 where plan_id = $1", "stays appended"),
            ("update lease set counter = counter - 1, expires_at = now() where resource_id = $1", "never goes back"),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=rule):
                await owner.execute(statement, plan.plan_id)
        await owner.execute("update journal_progress set frozen = 'it is' where plan_id = $1", plan.plan_id)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="stays frozen"):
            await owner.execute("update journal_progress set frozen = '' where plan_id = $1", plan.plan_id)


async def test_states_change_only_by_legal_transitions(world: Any) -> None:
    """A state without its transition is refused at the commit, and a transition that the table does not have at once."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        await world.create(plan)
    async with world.database.as_owner() as owner:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only by a transition"):
            await owner.execute("update plan set state = 'INITIATED', version = 2 where plan_id = $1", plan.plan_id)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only by a transition"):
            await owner.execute("update plan set transition_no = 2, version = 2 where plan_id = $1", plan.plan_id)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only by a transition"):
            await owner.execute("update plan set decision = 'ABORT', version = 2 where plan_id = $1", plan.plan_id)
        copied = "'another', digest, header, state, delegate, since, transition_no, journal_sequence, reason, reason_leg"
        rest = "reason_detail, sealing, unwound_by_policy, version, epoch_generation, epoch_counter, created_at, updated_at"
        columns = f"plan_id, {copied.split(', ', 1)[1]}, {rest}"
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only by a transition"):
            await owner.execute(f"insert into plan ({columns}) select {copied}, {rest} from plan where plan_id = $1", plan.plan_id)
        insert = "insert into plan_transition values ($1, 2, $2, $3, $4, 'X', 2, now())"
        for left, entered, decision in (
            ("DRAFT", "EXECUTING", "COMMIT"),
            ("PREPARED", "EXECUTING", "COMMIT"),
            ("DRAFT", "ABORTED", None),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="does not go"):
                await owner.execute(insert, plan.plan_id, left, entered, decision)


async def test_votes_never_change(world: Any) -> None:
    """A leg's vote and lock stay what they are."""
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
    async with world.database.as_owner() as owner:
        for change, rule in (("vote = null", "a vote never changes"), ("lock = sha256('x')", "a leg is immutable")):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=rule):
                await owner.execute(f"update plan_leg set {change} where plan_id = $1", plan.plan_id)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="a revision never goes down"):
            await owner.execute("update plan_leg set revision = 0 where plan_id = $1", plan.plan_id)


async def test_keys_are_sealed(world: Any) -> None:
    """A plan's key is kept sealed to the service and to the recovery key; either opens it, for its own plan alone."""
    async with world.coordinator():
        plan = delivery_versus_payment()
        made = await world.create(plan)
    (row,) = await world.rows("select * from decision_key where plan_id = $1", plan.plan_id)
    box = KeyBox([bytes(PrivateKey(bytes(range(32))))], bytes(32))
    key = box.open(plan.plan_id, row["service_key_id"], row["service_sealed"])
    recovered = KeyBox([bytes(PrivateKey(bytes(range(1, 33))))], bytes(32))
    assert recovered.open(plan.plan_id, row["recovery_key_id"], row["recovery_sealed"]) == key
    assert [leg.lock for leg in made.legs] == [lock_of(leg_key(key, plan.plan_id, leg.leg_id)) for leg in plan.legs]
    with pytest.raises(KeySealed):
        recovered.open(plan.plan_id, row["service_key_id"], row["service_sealed"])
    with pytest.raises(KeySealed):
        box.open(delivery_versus_payment().plan_id, row["service_key_id"], row["service_sealed"])
