"""The notary against a real registry: what it answers, and what stands on the chain afterwards."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from notary_world import LEG, NotaryWorld, plan_over

from lockstep_contracts.escrow import OPERATOR_ROLE, REVOKE_ROLE
from lockstep_contracts.events import Finalised, Registered
from lockstep_contracts.notary import PlanStatus
from lockstep_contracts.roles import encode_grant_operator
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.statements import ChainEvidence, OutcomeKind, Refusal
from lockstep_sandbox.deployment import NOTARY_SIGNER, SIGNERS
from lockstep_testkit import commands
from lockstep_testkit.factories import address_of
from lockstep_testkit.participant_conformance import DONE, REFUSED, ParticipantConformance, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess


class TestConformance(ParticipantConformance):
    @pytest.fixture
    def harness(self, world: NotaryWorld) -> ParticipantHarness:
        return world.harness


async def test_registers_and_finalises(world: NotaryWorld) -> None:
    """Prepare puts the plan's digest on the chain, Commit its outcome with the digest of its evidence; both can be read."""
    plan = await world.harness.plan()
    vote = await world.harness.prepare(plan)
    assert await world.status(plan) is PlanStatus.REGISTERED
    done = await world.harness.commit(plan, vote.report)
    assert await world.status(plan) is PlanStatus.COMMITTED
    registered, finalised = await world.events(plan)
    assert isinstance(registered, Registered)
    assert isinstance(finalised, Finalised)
    # The evidence of the last order: the harness draws an outcome's time anew for each.
    async with world.service.database.as_owner() as connection:
        closing = await connection.fetchval("select closing from participant_leg where plan_id = $1", plan.plan_id)
    assert finalised.evidence_hash in closing
    evidence = outcome_from_pb(done.report.outcome).outcome.evidence
    assert isinstance(evidence, ChainEvidence)
    assert (evidence.contract, evidence.entry_key, evidence.entry_status) == (
        world.chain.registry,
        plan.header.digest,
        "Committed",
    )
    read = await world.read(plan)
    assert (read.plan_digest, read.registration.entry_status, read.finalisation.entry_status, read.outcome) == (
        plan.header.digest,
        "Registered",
        "Committed",
        "Committed",
    )


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (PlanOutcome.ABORTED, PlanStatus.ABORTED),
        (PlanOutcome.REVERSED, PlanStatus.ABORTED),
        (PlanOutcome.MIXED, PlanStatus.MIXED),
    ],
)
async def test_finalises_what_did_not_commit(world: NotaryWorld, outcome: PlanOutcome, status: PlanStatus) -> None:
    """A registered plan that is closed otherwise says so on the chain, once."""
    plan = await world.harness.plan()
    await world.harness.prepare(plan)
    command = commands.abort(plan, LEG, closing=plan.closing(outcome))
    answer = await world.harness.settled(lambda: world.harness.send_abort(command))
    assert answer.verdict == DONE
    assert outcome_from_pb(answer.report.outcome).outcome.kind is OutcomeKind.RELEASED
    assert await world.status(plan) is status
    await world.harness.send_abort(command)
    assert [type(event).__name__ for event in await world.events(plan)] == ["Registered", "Finalised"]


async def test_finalises_what_was_never_registered(world: NotaryWorld) -> None:
    """A plan that was aborted before it was registered is aborted on the chain, and is never registered after."""
    plan = await world.harness.plan()
    assert (await world.harness.abort(plan)).verdict == DONE
    assert await world.status(plan) is PlanStatus.ABORTED
    await world.harness.prepare(plan)
    assert [type(event).__name__ for event in await world.events(plan)] == ["Finalised"]


async def test_another_registry(world: NotaryWorld) -> None:
    """A leg of another registry or chain is a NO, spoils no batch, and is released without a word on the chain."""
    good = await world.harness.plan()
    bad = [plan_over(address_of("other")), plan_over(world.chain.registry, "eip155:1")]
    batch = commands.prepare_request(*(commands.prepare(plan, LEG) for plan in (*bad, good)), wait=5)
    answers = (await world.harness.stub.Prepare(batch, timeout=60)).answers
    for plan, answer in zip(bad, answers, strict=False):
        assert answer.verdict == REFUSED
        found = vote_from_pb(answer.report.vote).vote.answer
        assert isinstance(found, Refusal)
        assert (found.reason, found.outside_code) == ("NOTARY_PREPARE_FAILED", "REGISTRY_UNKNOWN")
        assert (await world.harness.abort(plan)).verdict == DONE
        assert await world.events(plan) == []
    assert (await world.harness.prepare(good)).verdict == DONE


async def test_a_dead_letter_is_told_at_once(world: NotaryWorld) -> None:
    """A registration that reverts whenever it is tried is a NO with its first transaction; the leg is not sent again and again."""
    chain = world.chain.chain
    operators = [chain.address(name) for name in SIGNERS[NOTARY_SIGNER]]
    for each in operators:
        await chain.transact(world.chain.registry, REVOKE_ROLE.encode(OPERATOR_ROLE, each))
    try:
        plan = await world.harness.plan()
        answer = vote_from_pb((await world.harness.prepare(plan)).report.vote).vote.answer
    finally:
        for each in operators:
            await chain.transact(world.chain.registry, encode_grant_operator(each))
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.outside_code) == ("NOTARY_PREPARE_FAILED", "REVERTED")
    async with world.service.database.as_owner() as connection:
        assert await connection.fetchval("select count(*) from chain_order where plan_id = $1", plan.plan_id) == 1
    assert await world.status(plan) is PlanStatus.NONE


async def test_a_batch_is_one_transaction(world: NotaryWorld) -> None:
    """Many plans' digests go to the chain together, and each is answered by itself."""
    plans = [await world.harness.plan() for _ in range(20)]
    batch = commands.prepare_request(*(commands.prepare(plan, LEG) for plan in plans), wait=5)
    await world.harness.stub.Prepare(batch, timeout=60)
    for plan in plans:
        assert (await world.harness.prepare(plan)).verdict == DONE
    async with world.service.database.as_owner() as connection:
        carried = "select count(distinct intent_key) from chain_order where plan_id = any($1)"
        assert await connection.fetchval(carried, [plan.plan_id for plan in plans]) == 1


@pytest.mark.parametrize(
    "place", ["commit.after_commit", "chain.assign.after_commit", "chain.broadcast.after_send", "complete.in_tx"]
)
async def test_killed_while_finalising(world: NotaryWorld, service: ParticipantProcess, place: str) -> None:
    """Killed anywhere between the order and its outcome: the plan is finalised, once."""
    plan = await world.harness.plan()
    vote = await world.harness.prepare(plan)
    certificate = plan.certificate(vote_from_pb(vote.report.vote))
    command = await world.harness.commit_command(plan, certificate)
    await service.dies_at(f"notary.{place}", lambda: world.harness.send_commit(command, certificate))
    answer = await world.harness.settled(lambda: world.harness.send_commit(command, certificate))
    assert answer.verdict == DONE
    assert [type(event).__name__ for event in await world.events(plan)] == ["Registered", "Finalised"]


async def test_replays_say_nothing_twice(world: NotaryWorld) -> None:
    """Every command, sent ten times at once, is one event on the chain."""
    plan = await world.harness.plan()
    command = commands.prepare(plan, LEG)
    await asyncio.gather(*(world.harness.send_prepare(command) for _ in range(10)))
    vote = await world.harness.prepare(plan)
    certificate = plan.certificate(vote_from_pb(vote.report.vote))
    order = await world.harness.commit_command(plan, certificate)
    await asyncio.gather(*(world.harness.send_commit(order, certificate) for _ in range(10)))
    await world.harness.settled(lambda: world.harness.send_commit(order, certificate))
    assert [type(event).__name__ for event in await world.events(plan)] == ["Registered", "Finalised"]


async def test_reading_what_is_not_there(world: NotaryWorld) -> None:
    """A plan that the notary has nothing of is not found, and a malformed id is named."""
    plan = await world.harness.plan()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.read(plan)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
