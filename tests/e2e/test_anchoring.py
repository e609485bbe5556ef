"""Plans that go on chain in batches, through the whole system."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from lockstep.notary.v1.notary_service_pb2 import GetNotarisationResponse
from lockstep.participant.v1 import leg_pb2
from lockstep_client.readers import NotaryClient
from lockstep_contracts.notary import (
    AnchorKind,
    PlanStatus,
    decode_anchor_of_many,
    decode_plan_status_of,
    encode_anchor_of_many,
    encode_plan_status_of,
)
from lockstep_kit import merkle
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.checker import collect, judge
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

ANCHORED_SECONDS_MAX = 180.0


async def anchored(crew: Crew, plan_id: str) -> GetNotarisationResponse:
    """The plan's notarisation, once its end is anchored."""
    sandbox = crew.sandbox
    async with NotaryClient(sandbox.address("notary"), sandbox.tls(CLIENT)) as notary:
        give_up = time.monotonic() + ANCHORED_SECONDS_MAX
        while not (read := await notary.get_notarisation(plan_id)).outcome_proof.HasField("anchor"):
            assert time.monotonic() < give_up, "the plan's end is not anchored"
            await asyncio.sleep(0.1)
    return read


@pytest.mark.parametrize("anchoring", ["batched", "deferred"])
async def test_a_batched_plan_settles(sandbox: Sandbox, crew: Crew, anchoring: str) -> None:
    """It settles once; its registration and outcome lead to roots that the registry holds, and every record of it agrees."""
    payee = draw_address()
    plan = await crew.settled(crew.payments(payee=payee) | {"anchoring": anchoring})
    assert plan.outcome == leg_pb2.PLAN_OUTCOME_COMMITTED
    await crew.assert_settled_once(plan.header.plan_id, payee)
    read = await anchored(crew, plan.header.plan_id)
    registry = sandbox.chain.contracts["NotaryRegistry"]
    for proof, kind in ((read.registration_proof, AnchorKind.REGISTRATIONS), (read.outcome_proof, AnchorKind.OUTCOMES)):
        leaf = merkle.leaf_hash(proof.leaf_data)
        assert merkle.root_from_path(leaf, proof.leaf_index, proof.tree_size, proof.path) == proof.root_hash
        found = decode_anchor_of_many(await sandbox.chain.node.read(registry, encode_anchor_of_many([proof.root_hash])))
        assert found == ((kind, proof.tree_size),)
    status = await sandbox.chain.node.read(registry, encode_plan_status_of(read.plan_digest))
    assert decode_plan_status_of(status) is PlanStatus.NONE
    evidence = await collect(sandbox, focus=[plan.header.plan_id])
    (judged,) = evidence.judged_plans
    assert evidence.chain.notarised[judged.digest] is PlanStatus.COMMITTED
    judgement = judge(evidence)
    assert judgement.holds, judgement.text()


async def test_a_batched_plan_that_was_cancelled_is_audited(sandbox: Sandbox, crew: Crew) -> None:
    """The hash of its abort audit log lies under an anchored root, and the command verifies it as it does one that has a record of its own."""
    started = await crew.started(crew.payments() | {"anchoring": "batched"})
    plan = await crew.awaiting(started.header.plan_id, "release")
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
    closed = await crew.driven(plan.header.plan_id)
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_ABORTED
    read = await anchored(crew, plan.header.plan_id)
    code, out, errors = await lockstep("audit", plan.header.plan_id, "--json", sandbox=sandbox)
    assert (code, errors) == (0, "")
    told = json.loads(out)
    assert told["valid"]
    assert told["chain"]["status"] == "ABORTED"
    assert told["sha256"] in read.outcome_proof.leaf_data.decode()
