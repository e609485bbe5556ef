"""Commands with old epochs, as a coordinator that lost its lease long ago would send them: participants refuse them by their epoch, and change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from lockstep.participant.v1 import leg_pb2
from lockstep_kit.participant.records import LegRecord
from lockstep_sandbox.stack import PARTICIPANTS, Sandbox
from lockstep_testkit.checker import collect, probe
from lockstep_testkit.crew import Crew

#: Until the killed process is gone.
DEATH_SECONDS_MAX: Final = 180.0


async def assert_old_epochs_are_refused(sandbox: Sandbox, plan_id: str) -> Mapping[str, tuple[LegRecord, ...]]:
    """Every participant is shown old epochs of this plan's legs alone; their rows, as they were before."""
    everything = await collect(sandbox)
    legs = {name: tuple(each for each in rows if each.plan_id == plan_id) for name, rows in everything.legs.items()}
    assert all(legs.values())
    probes = await probe(sandbox, dataclasses.replace(everything, legs=legs))
    assert {each.participant for each in probes} == set(PARTICIPANTS)
    assert {(each.verdict, each.reason, each.before == each.after) for each in probes} == {("REJECTED", "EPOCH_STALE", True)}
    return legs


async def test_of_a_plan_that_settled(sandbox: Sandbox, crew: Crew) -> None:
    """Prepare, Commit and Abort."""
    plan_id = (await crew.settled(crew.payments())).header.plan_id
    await assert_old_epochs_are_refused(sandbox, plan_id)


async def test_of_a_leg_that_was_never_prepared(sandbox: Sandbox, crew: Crew) -> None:
    """Where the Abort came first there is no Prepare to be sent again: one that is well formed is refused by its epoch, not by a field."""
    await crew.arm("dlt-gateway", "dlt-gateway.prepare.before_tx=kill")
    try:
        plan = await crew.started(crew.payments())
        assert await sandbox.supervisor.wait_until_ended("dlt-gateway", DEATH_SECONDS_MAX) == -9
        await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
    finally:
        await crew.disarm("dlt-gateway")
    closed = await crew.driven(plan.header.plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_ABORTED
    (bonds,) = (await assert_old_epochs_are_refused(sandbox, plan.header.plan_id))["dlt-gateway"]
    assert bonds.payer_signature is None
