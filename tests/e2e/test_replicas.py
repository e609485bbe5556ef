"""Two processes of every service on one database: one is paused past its lease, or killed in the middle, and every effect happens once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import yaml

from lockstep_client.client import LockstepClient
from lockstep_client.convert import state_name
from lockstep_sandbox.health import serving
from lockstep_sandbox.ports import free_ports
from lockstep_sandbox.processes import Program
from lockstep_sandbox.runtime import write_secret
from lockstep_sandbox.stack import CLIENT, Sandbox, package_of
from lockstep_testkit.crew import Crew, draw_address

TAKEN_OVER_SECONDS_MAX = 180.0


@asynccontextmanager
async def second(sandbox: Sandbox, service: str) -> AsyncIterator[str]:
    """Another process of a service; yields its address."""
    (port,) = free_ports(1)
    folder = sandbox.run.path / "config"
    settings = yaml.safe_load((folder / f"{service}.yaml").read_text())
    settings["listen"]["port"], settings["metrics"]["port"] = port, 0
    name = f"{service}-second"
    path = write_secret(folder / f"{name}.yaml", yaml.safe_dump(settings))
    command = (sys.executable, "-m", package_of(service), "--config", str(path))
    await sandbox.supervisor.start(Program(name, command, ready=serving(f"127.0.0.1:{port}", sandbox.tls(CLIENT))))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await sandbox.supervisor.stop(name)


async def test_a_coordinator_is_paused_past_its_lease(sandbox: Sandbox, crew: Crew) -> None:
    """Paused with its commands on the way, a coordinator is taken over; when it lives on it changes nothing, and the plan is settled once."""
    payee = draw_address()
    async with second(sandbox, "coordinator") as address, LockstepClient(address, sandbox.tls(CLIENT)) as other:
        plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
        waiting = await crew.awaiting(plan_id, "release")
        # Nobody validates meanwhile: the plan cannot come to its end before its coordinator is paused.
        async with crew.paused_validator():
            await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
            sandbox.supervisor.pause("coordinator")
            try:
                async with asyncio.timeout(TAKEN_OVER_SECONDS_MAX):
                    while True:
                        async with crew.database("coordinator") as database:
                            counter = await database.fetchval("select counter from lease where resource_id = $1", plan_id)
                        found = await other.get_plan(plan_id)
                        if counter >= 2 and state_name(found.state) == "VALIDATING":
                            break
                        await asyncio.sleep(0.2)
            finally:
                sandbox.supervisor.resume("coordinator")
        await crew.driven(plan_id)
    await crew.assert_settled_once(plan_id, payee)


@pytest.mark.parametrize("service", ["dlt-gateway", "bank-gateway", "notary", "event-journal"])
async def test_a_participant_of_two_processes(sandbox: Sandbox, crew: Crew, service: str) -> None:
    """Two processes of a participant work on the same legs; one is killed in the middle; each effect happens once, and nobody is called."""
    payee = draw_address()
    async with second(sandbox, service):
        plans = [await crew.started(crew.payments(payee=payee if number == 0 else draw_address())) for number in range(3)]
        driving = [crew.driving(each.header.plan_id) for each in plans]
        await asyncio.sleep(1.0)
        await sandbox.supervisor.kill9(service)
        await asyncio.sleep(1.0)
        await sandbox.supervisor.restart(service)
        for task in driving:
            plan = await task
            assert list(plan.escalations) == []
    await crew.assert_settled_once(plans[0].header.plan_id, payee)
    for each in plans:
        verdict = await crew.journal.verify_plan(each.header.plan_id)
        assert (verdict.valid, verdict.sealed) == (True, True)
