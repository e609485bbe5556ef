"""Two replicas of every service, each pair on processors of its own: both do a part of the work, and no part is done by both."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.openmetrics import parser

from lockstep.participant.v1 import leg_pb2
from lockstep_kit.rpc.arrows import spiffe_id
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import CLIENT, CLIENT_LIMITS, PARTICIPANTS, SERVICES, Sandbox
from lockstep_testkit.checker import collect, judge
from lockstep_testkit.crew import Crew, draw_address

REPLICAS: Final = 2
#: For each of two crews, whose people stay with one replica of the coordinator.
PLANS: Final = 8
#: Of the work, what the lesser replica of the coordinator does at the least. Half would be even; who signs last decides who ends a plan.
SHARE_MIN: Final = 0.2
#: A door gives each connection to the next replica, and a caller has one connection to a door: renewed as often as this, it comes to each of them.
CONNECTION_SECONDS: Final = 2.0
COMMANDS: Final = (
    "participant.v1.ParticipantService/Prepare",
    "participant.v1.ParticipantService/Commit",
    "journal.v1.JournalService/Append",
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """A sandbox of its own, whose replicas keep to their processors."""
    files = RuntimeDirectory.create(tmp_path_factory.mktemp("divided"))
    listen = {"limits": {"named": {spiffe_id(CLIENT): CLIENT_LIMITS}}, "connection_seconds_max": CONNECTION_SECONDS}
    replicas = dict.fromkeys(SERVICES, REPLICAS)
    async with Sandbox(files, sampled_ratio=0.0, replicas=replicas, listen=listen) as running:
        for service in SERVICES:
            for replica, processor in zip(running.replicas_of(service), itertools.cycle(sorted(os.sched_getaffinity(0)))):
                pin(running.supervisor.pid(replica), processor)
        yield running


def pin(pid: int, processor: int) -> None:
    """Have a process run on one processor, with every thread that it has and will have."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processor})


async def counted(sandbox: Sandbox, replica: str, name: str, **labels: str) -> int:
    """Sum of a process's counter over the samples whose labels hold these words."""
    async with aiohttp.ClientSession() as session, session.get(sandbox.metrics_url(replica)) as answer:
        families = parser.text_string_to_metric_families(await answer.text())  # type: ignore[no-untyped-call]  # the library's
        samples = [each for family in families for each in family.samples if each.name == name]
    return int(sum(each.value for each in samples if all(word in each.labels[label] for label, word in labels.items())))


async def commands(sandbox: Sandbox, replica: str) -> int:
    """Commands and entries that a process of a participant has taken."""
    return sum([await counted(sandbox, replica, "lockstep_rpc_server_requests_total", method=each, code="OK") for each in COMMANDS])


async def test_replicas_divide_the_work(sandbox: Sandbox) -> None:
    """Both replicas of each service do a part, each settlement is counted by one of them, and every effect is there once."""
    async with Crew(sandbox) as one, Crew(sandbox) as other:

        async def settle(crew: Crew) -> tuple[str, str]:
            payee = draw_address()
            plan = await crew.settled(crew.payments(payee=payee))
            assert (plan.outcome, list(plan.escalations)) == (leg_pb2.PLAN_OUTCOME_COMMITTED, [])
            return plan.header.plan_id, payee

        plans = await asyncio.gather(*(settle(crew) for crew in (one, other) for _ in range(PLANS)))
        for plan_id, payee in plans:
            await one.assert_settled_once(plan_id, payee)
    judgement = judge(await collect(sandbox))
    assert not judgement.violations, judgement.text()
    coordinators = sandbox.replicas_of("coordinator")
    closed = [await counted(sandbox, each, "lockstep_settlements_total") for each in coordinators]
    steps = [await counted(sandbox, each, "lockstep_plan_transitions_total") for each in coordinators]
    assert sum(closed) == len(plans), closed
    assert min(steps) >= SHARE_MIN * sum(steps), steps
    for service in PARTICIPANTS:
        taken = {each: await commands(sandbox, each) for each in sandbox.replicas_of(service)}
        assert min(taken.values()) > 0, taken
