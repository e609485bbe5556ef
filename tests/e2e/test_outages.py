"""A participant is down for longer than the plans' deadline, whatever phase they are in; when it is back, each plan ends whole."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.making import create
from lockstep_sandbox import outside, scene
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew, draw_address

#: Enough for people to release a plan; a machine that has other things to do is given as much more as it takes.
DEADLINE_SECONDS_MIN = 20
#: By whose clock soever, the deadline has passed so long after it.
APART_SECONDS = 1.0

ABORTED, COMMITTED = leg_pb2.PLAN_OUTCOME_ABORTED, leg_pb2.PLAN_OUTCOME_COMMITTED


@pytest.mark.parametrize("service", ["dlt-gateway", "bank-gateway", "notary", "event-journal"])
async def test_a_participant_is_down_past_the_deadline(sandbox: Sandbox, crew: Crew, service: str) -> None:
    """What was not decided is given up; what was is settled, but where the one that decides is the one that is down: nothing is held, nothing half done."""
    escrowed = await outside.escrowed(sandbox, scene.BOND.symbol)
    payees = {name: draw_address() for name in ("drafted", "preparing", "prepared", "released")}
    seconds = await crew.unhurried_seconds(DEADLINE_SECONDS_MIN)
    documents = {name: crew.payments(payee=payee) | {"deadline": f"{seconds}s"} for name, payee in payees.items()}
    names = ("prepared", "released")
    begun = await asyncio.gather(*(crew.started(documents[name]) for name in names))
    started = {name: plan.header.plan_id for name, plan in zip(names, begun, strict=True)}
    waiting = dict(zip(names, await asyncio.gather(*(crew.awaiting(each, "release") for each in started.values())), strict=True))
    drafted = await create(crew.client, crew.draft(documents["drafted"]), crew.key("maker"))
    await sandbox.supervisor.kill9(service)
    try:
        await crew.client.sign_gate(started["released"], crew.signature(waiting["released"], "release"))
        executed = await crew.executed(drafted)
        preparing = await crew.started(documents["preparing"])
        await asyncio.sleep(seconds + APART_SECONDS)
    finally:
        await sandbox.supervisor.restart(service)
    plans = {
        "drafted": executed.header.plan_id,
        "preparing": preparing.header.plan_id,
        **started,
    }
    ended = dict(zip(plans, await asyncio.gather(*(closed(crew, each) for each in plans.values())), strict=True))
    # The bank's hold can lapse, so that it is the bank that decides; it was not told to begin before the deadline.
    decided = ABORTED if service == "bank-gateway" else COMMITTED
    assert {name: plan.outcome for name, plan in ended.items()} == {
        "drafted": ABORTED,
        "preparing": ABORTED,
        "prepared": ABORTED,
        "released": decided,
    }
    for name, plan in ended.items():
        assert not plan.escalations, name
        if plan.outcome == COMMITTED:
            await crew.assert_settled_once(plans[name], payees[name])
        else:
            await crew.assert_nothing_moved(plans[name], payees[name])
    assert await outside.escrowed(sandbox, scene.BOND.symbol) == escrowed
    assert (await outside.bank(sandbox, "/audit"))["violations"] == []


async def closed(crew: Crew, plan_id: str) -> settlement.Plan:
    """The plan at its end; nobody opens another gate than the validator's."""
    return await crew.driven(plan_id, gates=("validate",))
