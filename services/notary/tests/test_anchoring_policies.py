"""A notary that serves one way of anchoring alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest_asyncio
from notary_world import NotaryWorld

from lockstep.participant.v1 import participant_service_pb2
from lockstep.type.v1 import plan_pb2
from lockstep_kit.convert import vote_from_pb
from lockstep_kit.plan import Anchoring
from lockstep_kit.statements import Refusal
from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.participant_conformance import CALL_SECONDS, DONE, REFUSED
from lockstep_testkit.participants import ParticipantProcess


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain
) -> ParticipantProcess:
    chain = settlement_chain.settings("notary")
    return await participant_for("notary", chain=chain, registry=settlement_chain.registry, anchoring=["DEFERRED"])


async def test_a_way_that_is_not_served(world: NotaryWorld) -> None:
    """A notary says which ways it serves; another is a NO that names the field, and can be aborted."""
    described = await world.harness.stub.Describe(participant_service_pb2.DescribeRequest(), timeout=CALL_SECONDS)
    assert list(described.anchoring) == [plan_pb2.ANCHORING_DEFERRED]
    harness = world.harness_of(Anchoring.BATCHED)
    plan = await harness.plan()
    answer = await harness.prepare(plan)
    assert answer.verdict == REFUSED
    refusal = vote_from_pb(answer.report.vote).vote.answer
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.outside_code) == ("NOTARY_PREPARE_FAILED", "ANCHORING_UNSERVED")
    assert "notarisation.anchoring" in refusal.detail
    assert (await harness.abort(plan)).verdict == DONE
    served = world.harness_of(Anchoring.DEFERRED)
    assert (await served.prepare(await served.plan())).verdict == DONE
