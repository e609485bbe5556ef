"""The chain takes blocks back after a confirmation was seen in them: what was only seen is never reported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_sandbox import outside
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew, draw_address
from lockstep_testkit.miner import Miner

FINALITY_DEPTH = 3
SECONDS_MAX = 180.0
LOOK_SECONDS = 0.05


@dataclass
class Scene:
    """A chain that is final three blocks deep, and a miner who does as told."""

    sandbox: Sandbox
    crew: Crew
    miner: Miner

    async def until(self, look: Any, holds: Any) -> Any:
        """What is found once it holds."""
        give_up = time.monotonic() + SECONDS_MAX
        while not holds(found := await look()):
            assert time.monotonic() < give_up, found
            await asyncio.sleep(LOOK_SECONDS)
        return found

    async def seen_and_taken_back(self, plan_id: str, status: LegStatus) -> None:
        """Mine by hand until the tokens' leg has a status, see that nobody says so, and take the blocks back."""
        digest = (await self.crew.client.get_plan(plan_id)).plan_digest
        escrow = self.sandbox.chain.contracts["SettlementEscrow"]
        blocks = 0
        while await outside.leg_status(self.sandbox, digest, "bonds") is not status:
            assert blocks < FINALITY_DEPTH
            # Others send transactions too, when their time has come: a block without the leg's own would only be one nearer to finality.
            await self.until(lambda: self.miner.waiting_for(escrow), bool)
            await self.sandbox.chain.node.call("evm_mine")
            blocks += 1
        await asyncio.sleep(1.0)
        assert phase(await self.crew.client.get_plan(plan_id)) != f"LEG_PHASE_{status.name}"
        await self.sandbox.chain.node.call("anvil_reorg", blocks, [])
        assert await outside.leg_status(self.sandbox, digest, "bonds") is not status


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A sandbox of its own: what is taken back here is taken back from everybody."""
    depth = {"LOCKSTEP_CHAIN__FINALITY_DEPTH": str(FINALITY_DEPTH)}
    run = RuntimeDirectory.create(tmp_path_factory.mktemp("reorganised"))
    async with Sandbox(run, environ={"dlt-gateway": depth, "notary": depth}) as sandbox:
        miner = Miner(sandbox)
        async with miner.running(), Crew(sandbox) as crew:
            yield Scene(sandbox, crew, miner)


def phase(plan: settlement.Plan) -> str:
    """Where the tokens' leg stands, as the coordinator knows it."""
    return leg_pb2.LegPhase.Name(next(each for each in plan.legs if each.leg.leg_id == "bonds").phase)


async def test_what_is_not_final_is_not_reported(world: Scene) -> None:
    """A lock and a payout whose blocks are taken back were never reported; both are made again, and the tokens move once."""
    payee = draw_address()
    world.miner.mines = False
    plan_id = (await world.crew.started(world.crew.payments(payee=payee))).header.plan_id
    await world.seen_and_taken_back(plan_id, LegStatus.PREPARED)
    world.miner.mines = True
    waiting = await world.crew.awaiting(plan_id, "release")
    world.miner.mines = False
    await world.crew.client.sign_gate(plan_id, world.crew.signature(waiting, "release"))
    await world.seen_and_taken_back(plan_id, LegStatus.COMMITTED)
    world.miner.mines = True
    closed = await world.crew.driven(plan_id)
    assert (closed.outcome, list(closed.escalations)) == (leg_pb2.PLAN_OUTCOME_COMMITTED, [])
    await world.crew.assert_settled_once(plan_id, payee)
