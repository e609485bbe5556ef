"""Every service is replaced by a new process, one after another, while plans settle and people watch: nothing fails, and nobody misses anything."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import yaml

from lockstep.participant.v1 import leg_pb2
from lockstep_client.client import LockstepClient
from lockstep_client.watching import Change, Snapshot
from lockstep_sandbox.health import serving
from lockstep_sandbox.network import Door
from lockstep_sandbox.ports import LOOPBACK, free_ports
from lockstep_sandbox.processes import Program
from lockstep_sandbox.runtime import write_secret
from lockstep_sandbox.stack import CLIENT, PARTICIPANTS, Sandbox, package_of
from lockstep_testkit.crew import PATIENT, Crew, draw_address

SECOND = "coordinator-second"
#: The order in which an upgrade goes: the participants first, then the coordinator's replicas.
ORDER = (*PARTICIPANTS, "coordinator", SECOND)
WATCHERS = 2
STREAM_SECONDS_MAX = 600.0
#: Between the calls of one who reads all the time.
PAUSE_SECONDS = 0.05
#: A process that is told to stop has given everything back by itself before it would be killed.
STOPPED_BY_ITSELF = 0
STOPPED_SECONDS_MAX = 120.0


class Watcher:
    """Follows one plan from its beginning to its end."""

    def __init__(self, client: LockstepClient, plan_id: str) -> None:
        self.plan_id = plan_id
        self.snapshots = 0
        self.seen: list[int] = []
        self.began = asyncio.Event()
        self.task = asyncio.create_task(self._watch(client))

    async def _watch(self, client: LockstepClient) -> None:
        async for news in client.watch_plan(self.plan_id):
            match news:
                case Snapshot():
                    self.snapshots += 1
                    self.began.set()
                case Change():
                    self.seen.append(news.event.sequence)


@asynccontextmanager
async def two_coordinators(sandbox: Sandbox) -> AsyncIterator[str]:
    """A second replica of the coordinator, and one address for both; yields the address."""
    port, door = free_ports(2)
    folder = sandbox.run.path / "config"
    settings = yaml.safe_load((folder / "coordinator.yaml").read_text())
    first = settings["listen"]["port"]
    settings["listen"]["port"], settings["metrics"]["port"] = port, 0
    path = write_secret(folder / f"{SECOND}.yaml", yaml.safe_dump(settings))
    command = (sys.executable, "-m", package_of("coordinator"), "--config", str(path))
    await sandbox.supervisor.start(Program(SECOND, command, ready=serving(f"{LOOPBACK}:{port}", sandbox.tls(CLIENT))))
    try:
        async with Door(door, [first, port]):
            yield f"{LOOPBACK}:{door}"
    finally:
        await sandbox.supervisor.stop(SECOND)


async def test_a_rolling_restart_loses_nothing(sandbox: Sandbox, crew: Crew) -> None:
    """With every process replaced in turn every plan settles once, and each watcher sees every event once and in order, over one snapshot."""
    async with two_coordinators(sandbox) as address, LockstepClient(address, sandbox.tls(CLIENT), PATIENT) as client:
        payees: dict[str, str] = {}
        watchers: list[Watcher] = []
        driving: list[asyncio.Task[object]] = []
        reading = asyncio.create_task(read_on(client))

        async def begin() -> str:
            payee = draw_address()
            plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
            payees[plan_id] = payee
            watchers.extend(Watcher(client, plan_id) for _ in range(WATCHERS))
            return plan_id

        try:
            # Each service goes while a plan that has just begun asks something of it, and one that was kept waits for people.
            kept = await begin()
            for service in ORDER:
                driving.append(crew.driving(await begin()))
                async with asyncio.timeout(STREAM_SECONDS_MAX):
                    await asyncio.gather(*(each.began.wait() for each in watchers))
                await replaced(sandbox, service)
            driving.append(crew.driving(kept))
            await asyncio.gather(*driving)
            async with asyncio.timeout(STREAM_SECONDS_MAX):
                await asyncio.gather(*(each.task for each in watchers))
            assert not reading.done(), reading
        finally:
            for each in (reading, *driving, *(watcher.task for watcher in watchers)):
                each.cancel()
        for plan_id, payee in payees.items():
            plan = await client.get_plan(plan_id)
            assert (plan.outcome, list(plan.escalations)) == (leg_pb2.PLAN_OUTCOME_COMMITTED, [])
            await crew.assert_settled_once(plan_id, payee)
        await assert_nothing_missed(crew, watchers)


async def read_on(client: LockstepClient) -> None:
    """One call after another, none of which may fail.

    Raises:
        LockstepError: one did.
    """
    while True:
        async for _ in client.list_plans(page_size=1):
            break
        await asyncio.sleep(PAUSE_SECONDS)


async def replaced(sandbox: Sandbox, service: str) -> None:
    """The service's process is told to stop, ends by itself, and another takes its place."""
    os.kill(sandbox.supervisor.pid(service), signal.SIGTERM)
    ended = await sandbox.supervisor.wait_until_ended(service, STOPPED_SECONDS_MAX)
    assert ended == STOPPED_BY_ITSELF, sandbox.supervisor.log_tail(service)
    await sandbox.supervisor.restart(service)


async def assert_nothing_missed(crew: Crew, watchers: list[Watcher]) -> None:
    """Each watcher saw the rest of its plan's events from where it began, each once and in order."""
    async with crew.database("coordinator") as database:
        for watcher in watchers:
            # Events are numbered within their plan.
            count = await database.fetchval("select count(*) from plan_event where plan_id = $1", watcher.plan_id)
            assert watcher.snapshots == 1
            assert watcher.seen, "a plan that ends has events after its start"
            assert watcher.seen == list(range(1, count + 1))[-len(watcher.seen) :]
