"""Reversals against a real escrow: what the gateway answers, and who holds the tokens afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from gateway_world import GatewayWorld, terms_of

from lockstep.participant.v1 import leg_pb2, participant_service_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_contracts.token import encode_add_agent, encode_remove_agent, encode_transfer
from lockstep_kit.convert import outcome_from_pb
from lockstep_kit.fence import Epoch
from lockstep_kit.reversals import order_digest
from lockstep_kit.statements import ChainEvidence, OutcomeKind, Refusal
from lockstep_testkit import commands
from lockstep_testkit.chains import draw_address
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import CALL_SECONDS, DONE, REFUSED, REJECTED
from lockstep_testkit.participants import ParticipantProcess

COMMITTED, REVERSED = leg_pb2.LEG_PHASE_COMMITTED, leg_pb2.LEG_PHASE_REVERSED


async def executed(world: GatewayWorld, plan: PlanCase) -> leg_pb2.CommandAnswer:
    """The plan's leg, executed."""
    done = await world.harness.commit(plan, (await world.harness.prepare(plan)).report)
    assert done.verdict == DONE, done
    return done


def refusal(answer: leg_pb2.CommandAnswer) -> Refusal:
    """Why a reversal was refused."""
    assert (answer.verdict, answer.report.phase) == (REFUSED, COMMITTED), answer
    outcome = outcome_from_pb(answer.report.reversal).outcome
    assert outcome.kind is OutcomeKind.REVERSAL_REFUSED
    assert outcome.refusal is not None
    return outcome.refusal


async def test_tokens_come_back(world: GatewayWorld) -> None:
    """Reverse of an executed leg gives the payer the tokens back, whole; the signed outcome shows where the contract says so."""
    plan = world.plan(900)
    before = await world.held(plan)
    done = await executed(world, plan)
    assert await world.held(plan) == (before[0] - 900, 900)
    answer = await world.harness.reverse(plan, plan.reversal())
    assert (answer.verdict, answer.report.phase) == (DONE, REVERSED)
    assert await world.held(plan) == before
    assert await world.status(plan) is LegStatus.REVERSED
    assert await world.events(plan) == ["Prepared", "Committed", "Reversed"]
    evidence = outcome_from_pb(answer.report.reversal).outcome.evidence
    assert isinstance(evidence, ChainEvidence)
    assert (evidence.contract, evidence.entry_status) == (world.chain.escrow, "Reversed")
    receipt = await world.chain.chain.node.call("eth_getTransactionReceipt", "0x" + evidence.transaction_hash.hex())
    assert int(receipt["blockNumber"], 16) <= evidence.block_number
    assert answer.report.outcome == done.report.outcome


async def test_describes_what_can_be_reversed(world: GatewayWorld) -> None:
    """The gateway says of each token whether what was paid of it can be taken back."""
    described = await world.harness.stub.Describe(participant_service_pb2.DescribeRequest(), timeout=CALL_SECONDS)
    told = {each.asset: each.reversible for each in described.assets}
    assert told == {world.chain.asset: True, world.chain.uncontrolled_asset: False}


async def test_a_token_without_a_controller_stays_paid(world: GatewayWorld) -> None:
    """Where the escrow does not control the token, the order is recorded, and refused in a signed answer; nothing is sent to the chain."""
    amount = world.chain.transfer().amount
    plan = world.plan(amount=replace(amount, asset=world.chain.uncontrolled_asset))
    await executed(world, plan)
    assert refusal(await world.harness.reverse(plan, plan.reversal())).reason == "REVERSAL_UNSUPPORTED"
    assert await world.status(plan) is LegStatus.COMMITTED
    async with world.service.database.as_owner() as connection:
        sent = "select count(*) from chain_order where plan_id = $1 and phase = 'REVERSING'"
        assert await connection.fetchval(sent, plan.plan_id) == 0


async def test_a_payee_that_has_spent_it(world: GatewayWorld) -> None:
    """What the payee has no more is not taken: refused with the token's own error; a new order, once it has it again, is carried out."""
    chain = world.chain.chain
    await chain.fund("payee")
    plan = world.plan(600, payee=chain.address("payee"))
    await executed(world, plan)
    await chain.transact(world.chain.token, encode_transfer(draw_address(), 600), by="payee")
    first = plan.reversal()
    answer = await world.harness.reverse(plan, first)
    found = refusal(answer)
    assert (found.reason, found.outside_code) == ("DLT_REVERSE_FAILED", "ERC20InsufficientBalance")
    assert await world.events(plan) == ["Prepared", "Committed", "Skipped"]
    await chain.transact(world.chain.token, encode_transfer(chain.address("payee"), 600), by="seller")
    again = await world.harness.reverse(plan, first)
    assert (again.verdict, again.report) == (REFUSED, answer.report)
    second = plan.reversal()
    done = await world.harness.reverse(plan, second)
    assert (done.verdict, done.report.phase) == (DONE, REVERSED)
    assert outcome_from_pb(done.report.reversal).outcome.order == order_digest(second)
    assert await world.chain.balance(chain.address("payee")) == 0


async def test_a_controller_that_was_dismissed(world: GatewayWorld) -> None:
    """Where the gateway believes that the escrow controls the token, and it does not, the contract's word is the answer."""
    plan = world.plan(50)
    await executed(world, plan)
    await world.chain.chain.transact(world.chain.token, encode_remove_agent(world.chain.escrow))
    try:
        found = refusal(await world.harness.reverse(plan, plan.reversal()))
    finally:
        await world.chain.chain.transact(world.chain.token, encode_add_agent(world.chain.escrow))
    assert (found.reason, found.outside_code) == ("DLT_REVERSE_FAILED", "NotAgent")
    assert await world.status(plan) is LegStatus.COMMITTED


async def test_each_leg_of_a_batch_is_reversed_for_itself(world: GatewayWorld) -> None:
    """Of a batch in one transaction, the legs that can be reversed are, and the other says why not."""
    chain = world.chain.chain
    await chain.fund("spender")
    plans = [world.plan(10), world.plan(20, payee=chain.address("spender")), world.plan(30)]
    for plan in plans:
        await executed(world, plan)
    await chain.transact(world.chain.token, encode_transfer(draw_address(), 20), by="spender")
    orders = [commands.reverse(plan, "tokens") for plan in plans]
    await world.harness.stub.Reverse(commands.reverse_request(*orders, wait=5), timeout=CALL_SECONDS)
    answers = [await world.harness.settled(lambda each=each: world.harness.send_reverse(each)) for each in orders]  # type: ignore[misc]
    assert [answer.verdict for answer in answers] == [DONE, REFUSED, DONE]
    assert [await world.status(plan) for plan in plans] == [LegStatus.REVERSED, LegStatus.COMMITTED, LegStatus.REVERSED]
    async with world.service.database.as_owner() as connection:
        carried = "select count(distinct intent_key) from chain_order where plan_id = any($1) and phase = 'REVERSING'"
        assert await connection.fetchval(carried, [plan.plan_id for plan in plans]) == 1


async def test_replays_take_nothing_twice(world: GatewayWorld) -> None:
    """An order, sent ten times at once, again when it is done, and beside another order, takes the tokens once."""
    plan = world.plan(70)
    before = await world.held(plan)
    await executed(world, plan)
    payee = terms_of(plan).payee
    # Tokens of the payee's own, which a second reversal would take.
    await world.chain.chain.transact(world.chain.token, encode_transfer(payee, 500), by="seller")
    order, other = commands.reverse(plan, "tokens"), commands.reverse(plan, "tokens")
    await asyncio.gather(*(world.harness.send_reverse(each) for each in [order, other] * 5))
    for each in (order, other, order):
        assert (await world.harness.settled(lambda each=each: world.harness.send_reverse(each))).verdict == DONE  # type: ignore[misc]
    assert await world.events(plan) == ["Prepared", "Committed", "Reversed"]
    assert await world.held(plan) == (before[0] - 500, 500)


async def test_stale_owner_reverses_nothing(world: GatewayWorld) -> None:
    """An owner of the plan that has been replaced takes nothing back, even with two operators' order (I7)."""
    plan = world.plan(30)
    await executed(world, plan)
    await world.harness.get(plan, raise_to=Epoch(2, 1))
    answer = await world.harness.reverse(plan, plan.reversal(), Epoch(1, 9))
    assert (answer.verdict, answer.rejection.reason) == (REJECTED, "EPOCH_STALE")
    assert await world.status(plan) is LegStatus.COMMITTED


PLACES = (
    "reverse.in_tx",
    "reverse.after_commit",
    "chain.carry.in_tx",
    "chain.assign.in_tx",
    "chain.assign.after_commit",
    "chain.broadcast.after_send",
    "chain.confirm.in_tx",
    "chain.confirm.after_commit",
    "complete.in_tx",
)


@pytest.mark.parametrize("place", PLACES)
async def test_killed_while_reversing(world: GatewayWorld, service: ParticipantProcess, place: str) -> None:
    """Killed anywhere between the order and its answer: the tokens come back, once."""
    plan = world.plan(400)
    before = await world.held(plan)
    await executed(world, plan)
    payee = terms_of(plan).payee
    await world.chain.chain.transact(world.chain.token, encode_transfer(payee, 1_000), by="seller")
    command = commands.reverse(plan, "tokens")
    await service.dies_at(f"dlt-gateway.{place}", lambda: world.harness.send_reverse(command))
    answer = await world.harness.settled(lambda: world.harness.send_reverse(command))
    assert (answer.verdict, answer.report.phase) == (DONE, REVERSED)
    assert await world.events(plan) == ["Prepared", "Committed", "Reversed"]
    assert await world.held(plan) == (before[0] - 1_000, 1_000)
