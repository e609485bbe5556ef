"""The gateway against a real escrow: what it answers, and what stands on the chain afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from gateway_world import LEG, GatewayWorld, terms_of

from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_kit.amounts import AssetId
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.statements import ChainEvidence, OutcomeKind, Promise, PromiseKind, Refusal
from lockstep_testkit import commands
from lockstep_testkit.chains import SCALE, UNWILLING, draw_address
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, REFUSED, ParticipantConformance, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import StrictNode


class TestConformance(ParticipantConformance):
    @pytest.fixture
    def harness(self, world: GatewayWorld) -> ParticipantHarness:
        return world.harness


async def refusal(world: GatewayWorld, plan: PlanCase, command: leg_pb2.PrepareCommand) -> Refusal:
    """Why the gateway votes NO."""
    answer = await world.harness.settled(lambda: world.harness.send_prepare(command))
    assert answer.verdict == REFUSED, answer
    found = world.answer(answer)
    assert isinstance(found, Refusal)
    return found


async def test_commit_pays_the_payee(world: GatewayWorld) -> None:
    """Prepare takes the payer's tokens, Commit gives them to the payee; votes and outcomes say what the chain says."""
    plan = world.plan(1_000)
    payer, _ = await world.held(plan)
    vote = await world.harness.prepare(plan)
    promise = world.answer(vote)
    assert isinstance(promise, Promise)
    assert (promise.kind, promise.expires_at) == (PromiseKind.GUARANTEED, None)
    assert await world.status(plan) is LegStatus.PREPARED
    assert await world.held(plan) == (payer - 1_000, 0)
    done = await world.harness.commit(plan, vote.report)
    assert await world.status(plan) is LegStatus.COMMITTED
    assert await world.held(plan) == (payer - 1_000, 1_000)
    assert await world.events(plan) == ["Prepared", "Committed"]
    evidence = outcome_from_pb(done.report.outcome).outcome.evidence
    assert isinstance(evidence, ChainEvidence)
    assert (evidence.contract, evidence.entry_status) == (world.chain.escrow, "Committed")
    receipt = await world.chain.chain.node.call("eth_getTransactionReceipt", "0x" + evidence.transaction_hash.hex())
    assert int(receipt["blockNumber"], 16) <= evidence.block_number


async def test_abort_refunds_the_payer(world: GatewayWorld) -> None:
    """Abort of a prepared leg gives the tokens back, and nothing can be paid out any more."""
    plan = world.plan(500)
    before = await world.held(plan)
    vote = await world.harness.prepare(plan)
    assert (await world.harness.abort(plan)).verdict == DONE
    assert await world.held(plan) == before
    await world.harness.commit(plan, vote.report)
    assert await world.events(plan) == ["Prepared", "Aborted"]


async def test_what_comes_one_by_one_goes_together(world: GatewayWorld, endpoint: StrictNode) -> None:
    """Legs of many calls that come while others are taken up go in few transactions: each is carried once, and all take effect."""
    plans = [world.plan(10) for _ in range(12)]
    endpoint.faults.delay_seconds = 2.0
    try:
        for plan in plans:
            await world.harness.stub.Prepare(commands.prepare_request(world.command(plan)), timeout=60)
    finally:
        endpoint.faults.delay_seconds = 0.0
    for plan in plans:
        await world.harness.prepare(plan)
        assert await world.status(plan) is LegStatus.PREPARED
    async with world.service.database.as_owner() as connection:
        orders = await connection.fetch(
            "select plan_id, intent_key from chain_order where plan_id = any($1)", [plan.header.plan_id for plan in plans]
        )
    assert len(orders) == len(plans)
    assert len({row["intent_key"] for row in orders}) <= len(plans) // 2


async def test_abort_of_an_unknown_leg_leaves_a_tombstone_on_the_chain(world: GatewayWorld) -> None:
    """A leg that was aborted before it was prepared can never be prepared, neither here nor by anybody on the contract."""
    plan = world.plan()
    released = await world.harness.abort(plan)
    assert outcome_from_pb(released.report.outcome).outcome.kind is OutcomeKind.RELEASED
    assert await world.status(plan) is LegStatus.ABORTED
    assert await world.events(plan) == ["Tombstoned"]


async def test_abort_overtakes_prepare(world: GatewayWorld) -> None:
    """An Abort that comes while the prepare is on its way ends with the payer holding what it held."""
    plan = world.plan(700)
    before = await world.held(plan)
    command = world.command(plan)
    await world.harness.stub.Prepare(commands.prepare_request(command), timeout=60)
    assert (await world.harness.abort(plan)).verdict == DONE
    assert await world.held(plan) == before
    assert await world.status(plan) is LegStatus.ABORTED


async def test_allowance_is_missing(world: GatewayWorld) -> None:
    """A payer who does not let the escrow take the tokens is a NO that says so."""
    plan = world.plan(payer=UNWILLING)
    found = await refusal(world, plan, world.command(plan, signer=UNWILLING))
    assert (found.reason, found.outside_code) == ("DLT_PREPARE_FAILED", "ALLOWANCE_LOW")
    assert await world.status(plan) is LegStatus.NONE


async def test_somebody_else_signed(world: GatewayWorld) -> None:
    """A signature that is not the payer's is a NO with the contract's own error."""
    plan = world.plan()
    found = await refusal(world, plan, world.command(plan, signer=UNWILLING))
    assert (found.reason, found.outside_code) == ("DLT_PREPARE_FAILED", "SignatureInvalid")
    assert await world.status(plan) is LegStatus.NONE


@pytest.mark.parametrize(
    ("change", "code"),
    [("escrow", "ESCROW_UNKNOWN"), ("token", "TOKEN_UNKNOWN"), ("chain", "TOKEN_UNKNOWN"), ("scale", "SCALE_WRONG")],
)
async def test_what_is_not_served_here(world: GatewayWorld, change: str, code: str) -> None:
    """Terms that this gateway cannot serve are a NO, spoil no batch, send nothing to prepare, and are released when asked."""
    chain = world.chain
    amount = chain.transfer().amount
    bent = {
        "escrow": lambda: world.plan(escrow=draw_address()),
        "token": lambda: world.plan(amount=replace(amount, asset=AssetId(f"eip155:138/erc20:{draw_address()}"))),
        "scale": lambda: world.plan(amount=replace(amount, scale=SCALE + 1)),
        "chain": lambda: world.plan(amount=replace(amount, asset=AssetId(f"eip155:1/erc20:{chain.token}"))),
    }
    plan, good = bent[change](), world.plan()
    batch = commands.prepare_request(commands.prepare(plan, LEG, payer_signature=bytes(65)), world.command(good), wait=5)
    answers = (await world.harness.stub.Prepare(batch, timeout=60)).answers
    assert answers[0].verdict == REFUSED
    found = world.answer(answers[0])
    assert isinstance(found, Refusal)
    assert (found.reason, found.outside_code) == ("DLT_PREPARE_FAILED", code)
    assert (await world.harness.prepare(good)).verdict == DONE
    assert (await world.harness.abort(plan)).verdict == DONE
    assert "Prepared" not in await world.events(plan)


async def test_each_leg_of_a_batch_votes_for_itself(world: GatewayWorld) -> None:
    """Of a batch in one transaction, the legs that can be prepared are, and the others say why not."""
    plans = [world.plan(100), world.plan(100, payer=UNWILLING), world.plan(100), world.plan(100)]
    wrong = [{}, {"signer": UNWILLING}, {"signer": UNWILLING}, {}]
    batch = [world.command(plan, **change) for plan, change in zip(plans, wrong, strict=True)]
    await world.harness.stub.Prepare(commands.prepare_request(*batch, wait=5), timeout=60)
    answers = [await world.harness.settled(lambda each=each: world.harness.send_prepare(each)) for each in batch]  # type: ignore[misc]
    assert [answer.verdict for answer in answers] == [DONE, REFUSED, REFUSED, DONE]
    codes = [found.outside_code for found in map(world.answer, answers) if isinstance(found, Refusal)]
    assert codes == ["ALLOWANCE_LOW", "SignatureInvalid"]
    async with world.service.database.as_owner() as connection:
        carried = "select count(distinct intent_key) from chain_order where plan_id = any($1)"
        assert await connection.fetchval(carried, [plan.plan_id for plan in plans]) == 1


async def test_long_signatures_keep_nobody_from_the_chain(world: GatewayWorld) -> None:
    """A batch whose payers' signatures are as long as they may be does not fit into one transaction, and is answered all the same."""
    good = world.plan()
    long = [world.plan() for _ in range(80)]
    batch = [world.command(plan, signature=b"\x01" * 4096) for plan in long]
    batch.insert(40, world.command(good))
    response = await world.harness.stub.Prepare(commands.prepare_request(*batch), timeout=60)
    assert len(response.answers) == 81
    assert (await world.harness.prepare(good)).verdict == DONE
    last = await world.harness.settled(lambda: world.harness.send_prepare(batch[-1]))
    found = world.answer(last)
    assert isinstance(found, Refusal)
    assert found.outside_code == "SignatureInvalid"


PLACES = (
    "prepare.in_tx",
    "prepare.after_commit",
    "chain.carry.in_tx",
    "chain.assign.in_tx",
    "chain.assign.after_commit",
    "chain.broadcast.after_send",
    "chain.confirm.in_tx",
    "chain.confirm.after_commit",
    "complete.in_tx",
)


@pytest.mark.parametrize("place", PLACES)
async def test_killed_while_preparing(world: GatewayWorld, service: ParticipantProcess, place: str) -> None:
    """Killed anywhere between the command and its vote: after a restart and a repeat the leg is prepared, once."""
    plan = world.plan(300)
    payer, _ = await world.held(plan)
    command = world.command(plan)
    await service.dies_at(f"dlt-gateway.{place}", lambda: world.harness.send_prepare(command))
    answer = await world.harness.settled(lambda: world.harness.send_prepare(command))
    assert answer.verdict == DONE
    assert await world.events(plan) == ["Prepared"]
    assert await world.held(plan) == (payer - 300, 0)


@pytest.mark.parametrize("place", ["commit.after_commit", *PLACES[2:]])
async def test_killed_while_committing(world: GatewayWorld, service: ParticipantProcess, place: str) -> None:
    """Killed anywhere between the order and its outcome: the payee is paid, once."""
    plan = world.plan(400)
    payer, _ = await world.held(plan)
    vote = await world.harness.prepare(plan)
    certificate = plan.certificate(vote_from_pb(vote.report.vote))
    command = await world.harness.commit_command(plan, certificate)
    await service.dies_at(f"dlt-gateway.{place}", lambda: world.harness.send_commit(command, certificate))
    answer = await world.harness.settled(lambda: world.harness.send_commit(command, certificate))
    assert answer.verdict == DONE
    assert await world.events(plan) == ["Prepared", "Committed"]
    assert await world.held(plan) == (payer - 400, 400)


async def test_replays_move_nothing_twice(world: GatewayWorld) -> None:
    """Every command, sent ten times at once and again when it is done, moves the tokens once."""
    plan = world.plan(250)
    command = world.command(plan)
    votes = await asyncio.gather(*(world.harness.send_prepare(command) for _ in range(10)))
    assert {answer.verdict for answer in votes} <= {DONE, leg_pb2.COMMAND_VERDICT_PENDING}
    vote = await world.harness.prepare(plan)
    certificate = plan.certificate(vote_from_pb(vote.report.vote))
    order = await world.harness.commit_command(plan, certificate)
    await asyncio.gather(*(world.harness.send_commit(order, certificate) for _ in range(10)))
    assert (await world.harness.settled(lambda: world.harness.send_commit(order, certificate))).verdict == DONE
    await world.harness.abort(plan)
    await world.harness.send_prepare(command)
    assert await world.events(plan) == ["Prepared", "Committed"]
    assert await world.chain.balance(terms_of(plan).payee) == 250
