"""Each of the five databases is set back to an earlier moment of a plan, with everything real around it: the plan ends whole, each effect once.

A covering set runs by default; `make test-restores` (RESTORES=all) runs every service at every phase.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from lockstep_client.convert import state_name
from lockstep_client.making import create
from lockstep_kit.errors import LockstepError
from lockstep_kit.migrate import renew_logs
from lockstep_sandbox.runtime import write_secret
from lockstep_sandbox.stack import Sandbox, package_of
from lockstep_testkit.checker.log_reading import read_log
from lockstep_testkit.crew import Crew, awaited, draw_address
from lockstep_testkit.snapshots import Snapshot, Snapshots

SERVICES = ("coordinator", "dlt-gateway", "bank-gateway", "notary", "event-journal")
#: Where a plan stands when its database is copied.
PHASES = ("before", "drafted", "preparing", "approved", "released", "validated")
#: What runs every time: each service, each phase, and both ends of a plan.
COVERING = (
    ("coordinator", "preparing", "closed"),
    ("coordinator", "approved", "released"),
    ("dlt-gateway", "before", "closed"),
    ("bank-gateway", "approved", "closed"),
    ("notary", "released", "closed"),
    ("event-journal", "drafted", "closed"),
)
EVERYTHING = tuple((service, phase, end) for service in SERVICES for phase in PHASES for end in ("released", "closed"))
#: States of a plan that was released.
RELEASED = ("EXECUTING", "VALIDATING", "COMMITTED", "CLOSED")
#: What the notary has of a plan in batches that are anchored.
ANCHORED_LEAVES = """
select leaf.kind, leaf.outcome from plan_leaf as leaf join plan_batch as batch on batch.id = leaf.batch_id
    join anchor using (root) where leaf.plan_id = $1 and anchor.block_hash is not null order by leaf.seq
"""
#: A healed plan ends within this.
HEALED_SECONDS_MAX = 240.0
#: A plan whose deadline has to pass is given so much; more on a machine that has other things to do.
DEADLINE_SECONDS_MIN = 20


@dataclass
class Restoring:
    """Sets a service's database back, as an operator would: stopped, put back, started."""

    sandbox: Sandbox
    crew: Crew
    snapshots: Snapshots

    async def take(self, service: str) -> Snapshot:
        package = package_of(service)
        return await self.snapshots.take(package, self.sandbox.databases.logins[package].role)

    async def put_back(self, service: str, snapshot: Snapshot) -> None:
        supervisor = self.sandbox.supervisor
        program = supervisor.program(service)
        await supervisor.kill9(service)
        await supervisor.stop(service)
        await self.snapshots.put_back(snapshot)
        if service == "coordinator":
            generation = self.sandbox.run.path / "config" / "generation"
            write_secret(generation, f"{int(generation.read_text()) + 1}\n")
        else:
            login = self.sandbox.databases.logins[package_of(service)]
            password = login.owner_password_file.read_text().strip()
            await asyncio.to_thread(renew_logs, login.owner_url.replace("@", f":{password}@", 1))
        await supervisor.start(program)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def restoring(sandbox: Sandbox, crew: Crew) -> AsyncIterator[Restoring]:
    yield Restoring(sandbox, crew, Snapshots(sandbox.databases.server.url))


async def reached(crew: Crew, plan_id: str, states: Collection[str]) -> Any:
    return await crew.driven(plan_id, until=states, gates=())


async def bring_to(crew: Crew, plan_id: str, phase: str) -> None:
    """Bring an executed plan to a phase, with exactly the gates that it takes."""
    if phase == "preparing":
        return
    await crew.driven(plan_id, until=("PREPARED", *RELEASED), gates=("approve",))
    if phase == "approved":
        return
    await crew.driven(plan_id, until=RELEASED)
    if phase == "released":
        return
    await reached(crew, plan_id, ("COMMITTED", "CLOSED"))


async def settled_or_given_up(crew: Crew, plan_id: str) -> str:
    """The outcome of a plan once it is closed; gates are signed when they are awaited."""
    give_up = time.monotonic() + HEALED_SECONDS_MAX
    plan = None
    while time.monotonic() < give_up:
        try:
            plan = await crew.client.get_plan(plan_id)
            if state_name(plan.state) == "CLOSED":
                return str(plan.outcome)
            for gate in awaited(plan) & {"approve", "release"}:
                await crew.client.sign_gate(plan_id, crew.signature(plan, gate))
        except LockstepError:
            pass
        await asyncio.sleep(0.2)
    raise AssertionError(crew.told(plan_id, plan, ("CLOSED",)))


@pytest.mark.parametrize(("service", "phase", "end"), EVERYTHING if os.environ.get("RESTORES") == "all" else COVERING)
async def test_a_database_is_set_back(restoring: Restoring, crew: Crew, service: str, phase: str, end: str) -> None:
    """Whatever a service forgot of a plan that was released, the plan is settled, with each effect exactly once, and its journal holds."""
    payee = draw_address()
    snapshot = await restoring.take(service) if phase == "before" else None
    if phase == "before" and service == "coordinator":
        pytest.skip("a plan that the coordinator itself forgot has a test of its own")
    draft = crew.payments(payee=payee)
    if phase == "drafted":
        plan_id, snapshot = await drafted(restoring, crew, draft, service)
    else:
        plan_id = (await crew.started(draft)).header.plan_id
        if phase != "before":
            await bring_to(crew, plan_id, phase)
            snapshot = await restoring.take(service)
    assert snapshot is not None
    await bring_to(crew, plan_id, "released")
    give_up = time.monotonic() + HEALED_SECONDS_MAX
    while not any(each.type == "plan.released" for each in await crew.entries(plan_id)):
        assert time.monotonic() < give_up, "the journal has not heard of the release"
        await asyncio.sleep(0.1)
    if end == "closed":
        await crew.driven(plan_id)
    await restoring.put_back(service, snapshot)
    try:
        assert await settled_or_given_up(crew, plan_id) == "1"
        await crew.assert_settled_once(plan_id, payee)
        await assert_healed(crew, plan_id)
        assert await read_log(restoring.sandbox) == ()
    finally:
        await restoring.snapshots.drop(snapshot)


async def drafted(restoring: Restoring, crew: Crew, document: Any, service: str) -> tuple[str, Snapshot]:
    """A plan that was created, then copied, then executed."""
    draft = crew.draft(document)
    plan = await create(crew.client, draft, crew.key("maker"))
    snapshot = await restoring.take(service)
    for _ in range(600):
        try:
            await crew.executed(plan)
        except LockstepError:
            await asyncio.sleep(0.1)
        else:
            break
    return str(draft.header.plan_id), snapshot


async def assert_healed(crew: Crew, plan_id: str) -> None:
    """Every participant knows its legs as executed again, the chain is whole and sealed, nobody was called."""
    give_up = time.monotonic() + HEALED_SECONDS_MAX
    while True:
        try:
            phases = {}
            for service in SERVICES[1:]:
                async with crew.database(service) as database:
                    for row in await database.fetch("select leg_id, phase from participant_leg where plan_id = $1", plan_id):
                        phases[row["leg_id"]] = row["phase"]
            verdict = await crew.journal.verify_plan(plan_id)
            whole = verdict.valid and verdict.sealed
        except (LockstepError, OSError):
            whole = False
        if whole and len(phases) == 4 and set(phases.values()) == {"COMMITTED"}:
            break
        assert time.monotonic() < give_up, (phases, verdict)
        await asyncio.sleep(0.2)
    plan = await crew.client.get_plan(plan_id)
    assert list(plan.escalations) == []
    async with crew.database("coordinator") as database:
        moves = await database.fetch("select * from plan_transition where plan_id = $1 order by transition_no", plan_id)
    told = [
        each["transition"]["transition_no"]
        for each in [json.loads(entry.payload) for entry in await crew.entries(plan_id)]
        if "transition" in each
    ]
    assert told == [each["transition_no"] for each in moves] == list(range(1, len(moves) + 1))


@pytest.mark.parametrize("anchoring", ["batched", "deferred"])
async def test_a_notary_that_forgot_its_batches(restoring: Restoring, crew: Crew, anchoring: str) -> None:
    """What the notary had said of a plan in batches it says again, from before the plan was known to it: one registration, one outcome, both anchored."""
    payee = draw_address()
    snapshot = await restoring.take("notary")
    plan_id = (await crew.started(crew.payments(payee=payee) | {"anchoring": anchoring})).header.plan_id
    await crew.driven(plan_id)
    await restoring.put_back("notary", snapshot)
    try:
        await assert_healed(crew, plan_id)
        await crew.assert_settled_once(plan_id, payee)
        give_up = time.monotonic() + HEALED_SECONDS_MAX
        while True:
            async with crew.database("notary") as database:
                rows = await database.fetch(ANCHORED_LEAVES, plan_id)
            if [(row["kind"], row["outcome"]) for row in rows] == [(2, None), (3, "Committed")]:
                break
            assert time.monotonic() < give_up, rows
            await asyncio.sleep(0.2)
    finally:
        await restoring.snapshots.drop(snapshot)


async def test_a_plan_that_the_coordinator_forgot(restoring: Restoring, crew: Crew) -> None:
    """A plan of which the coordinator knows nothing any more holds nothing after its deadline: tokens and money go back to their owners."""
    payee, seconds = draw_address(), await crew.unhurried_seconds(DEADLINE_SECONDS_MIN)
    snapshot = await restoring.take("coordinator")
    document = crew.payments(payee=payee)
    document["deadline"] = f"{seconds}s"
    plan_id = (await crew.started(document)).header.plan_id
    await crew.driven(plan_id, until=("PREPARED",), gates=("approve",))
    await restoring.put_back("coordinator", snapshot)
    give_up = time.monotonic() + seconds + HEALED_SECONDS_MAX
    while True:
        async with crew.database("coordinator") as database:
            rows = await database.fetch("select leg_id, phase, settled_at from orphan_leg where plan_id = $1", plan_id)
        if len(rows) == 4 and all(row["settled_at"] is not None for row in rows):
            break
        assert time.monotonic() < give_up, rows
        await asyncio.sleep(0.5)
    await crew.assert_nothing_moved(plan_id, payee)
    verdict = await crew.journal.verify_plan(plan_id)
    assert (verdict.valid, verdict.sealed) == (True, True)
    await restoring.snapshots.drop(snapshot)
