"""A chain that takes back an anchor before it is final: it is not shown too early, and is anchored in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest_asyncio
from notary_world import LEG, NotaryWorld

from lockstep_kit.plan import Anchoring
from lockstep_testkit import commands
from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.participant_conformance import DONE, PENDING
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

FINALITY_DEPTH = 3


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> ParticipantProcess:
    """A notary for which a block is final when three more stand on it."""
    return await participant_for(
        "notary",
        chain=settlement_chain.settings("notary") | {"rpc_urls": [endpoint.url], "finality_depth": FINALITY_DEPTH},
        registry=settlement_chain.registry,
        judge_seconds=0.2,
        batch_seconds=0.2,
    )


async def test_an_anchor_is_taken_back(world: NotaryWorld) -> None:
    """A root whose block the chain forgets is never said to be anchored there; a deferred vote says nothing of it, a batched one waits."""
    deferred, batched = world.harness_of(Anchoring.DEFERRED), world.harness_of(Anchoring.BATCHED)
    plan, waiting = await deferred.plan(), await batched.plan()
    vote = await deferred.prepare(plan)
    assert vote.verdict == DONE
    command = commands.prepare(waiting, LEG)
    await batched.send_prepare(command)
    for each in (plan, waiting):
        for _ in range(2400):
            root = (await world.read(each)).registration_proof.root_hash
            if root and await world.anchors(root):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("a root does not come onto the chain")
    roots = [(await world.read(each)).registration_proof.root_hash for each in (plan, waiting)]
    await asyncio.sleep(1)
    assert not (await world.read(plan)).registration_proof.HasField("anchor")
    assert (await batched.send_prepare(command)).verdict == PENDING
    await world.chain.chain.node.call("anvil_reorg", 2, [])
    assert not (await world.read(plan)).registration_proof.HasField("anchor")
    async with world.chain.mining():
        assert (await batched.settled(lambda: batched.send_prepare(command))).verdict == DONE
        assert (await deferred.commit(plan, vote.report)).verdict == DONE
        read = await world.anchored(plan)
    for proof in (read.registration_proof, (await world.read(waiting)).registration_proof):
        assert proof.root_hash in roots
        assert len(await world.anchors(proof.root_hash)) == 1
        assert await world.shows(proof.anchor)
