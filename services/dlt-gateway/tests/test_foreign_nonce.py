"""A gateway whose account somebody else uses too: what became of a leg is a person's to find out, and nothing is guessed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest_asyncio
from gateway_world import LEG, GatewayWorld

from lockstep.participant.v1 import leg_pb2
from lockstep_contracts.escrow import LegStatus
from lockstep_kit.convert import vote_from_pb
from lockstep_sandbox.chain import CHAIN_ID
from lockstep_sandbox.deployment import DLT_SIGNER
from lockstep_testkit import commands
from lockstep_testkit.chains import SCALE, SettlementChain
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import CALL_SECONDS, DONE, PENDING
from lockstep_testkit.participants import DEATH_SECONDS_MAX, ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

#: The signed bytes are stored, and were not sent.
STORED = "dlt-gateway.chain.assign.after_commit=kill@1"
REPEATS = 4
#: How often it is seen whether something came about, twenty times a second.
LOOKS_MAX = 2400


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> ParticipantProcess:
    """A gateway with one account."""
    settings = settlement_chain.settings("dlt-gateway")
    return await participant_for(
        "dlt-gateway",
        chain=settings | {"rpc_urls": [endpoint.url], "signers": settings["signers"][:1]},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE},
        judge_seconds=0.2,
    )


async def taken_away(world: GatewayWorld, service: ParticipantProcess, provoke: Callable[[], Awaitable[object]]) -> str:
    """Kill the gateway when the leg's transaction is stored, and use its nonce for something else; the hash of that."""
    await service.restart(STORED)
    with contextlib.suppress(grpc.aio.AioRpcError):
        await provoke()
    await service.supervisor.wait_until_ended(service.name, DEATH_SECONDS_MAX)
    account, node = world.chain.chain.accounts[DLT_SIGNER], world.chain.chain.node
    nonce = int(await node.call("eth_getTransactionCount", account.address, "latest"), 16)
    transfer: dict[str, Any] = {
        "chainId": CHAIN_ID, "nonce": nonce, "to": account.address, "value": 1, "gas": 21_000,
        "maxFeePerGas": 50 * 10**9, "maxPriorityFeePerGas": 10**9,
    }  # fmt: skip
    taker = await node.call("eth_sendRawTransaction", "0x" + bytes(account.sign_transaction(transfer).raw_transaction).hex())
    await service.restart()
    return str(taker)


async def transactions(service: ParticipantProcess, plan: PlanCase) -> list[dict[str, Any]]:
    """What was ever queued for a plan, and how often it was signed."""
    asked = (
        "select purpose, state, nonce, evidence, (select count(*) from evm_attempt where transaction_id = id) attempts"
        " from evm_transaction where plan_id = $1 order by id"
    )
    async with service.database.as_owner() as database:
        return [dict(row) for row in await database.fetch(asked, plan.plan_id)]


async def assert_left_to_a_person(
    world: GatewayWorld,
    service: ParticipantProcess,
    plan: PlanCase,
    repeat: Callable[[], Awaitable[leg_pb2.CommandAnswer]],
    taker: str,
) -> leg_pb2.LegReport:
    """However often the command is repeated: the leg has no answer, and its transaction is the last one, with evidence."""
    for _ in range(LOOKS_MAX):
        if (await transactions(service, plan))[-1]["state"] == "manual":
            break
        await asyncio.sleep(0.05)
    for _ in range(REPEATS):
        assert (await repeat()).verdict == PENDING
    found = await transactions(service, plan)
    assert (found[-1]["state"], found[-1]["attempts"]) == ("manual", 1)
    evidence = json.loads(found[-1]["evidence"])
    assert (evidence["foreign_hash"], evidence["nonce"]) == (taker, found[-1]["nonce"])
    report = await world.harness.get(plan)
    assert report is not None
    assert "nonce" in report.trouble, report
    return report


async def test_a_commit_whose_nonce_was_taken(world: GatewayWorld, service: ParticipantProcess) -> None:
    """The leg stays in doubt: no outcome, no refund, no second transaction; the hold stands; and other legs are settled meanwhile."""
    plan = world.plan(600)
    payer, _ = await world.held(plan)
    vote = await world.harness.prepare(plan)
    certificate = plan.certificate(vote_from_pb(vote.report.vote))
    command = await world.harness.commit_command(plan, certificate)
    taker = await taken_away(world, service, lambda: world.harness.send_commit(command, certificate))
    report = await assert_left_to_a_person(world, service, plan, lambda: world.harness.send_commit(command, certificate), taker)
    assert (report.phase, report.HasField("outcome")) == (leg_pb2.LEG_PHASE_COMMITTING, False)
    assert [each["purpose"] for each in await transactions(service, plan)] == ["preparing", "committing"]
    other = world.plan(100)
    assert (await world.harness.commit(other, (await world.harness.prepare(other)).report)).verdict == DONE
    assert (await world.status(plan), await world.events(plan)) == (LegStatus.PREPARED, ["Prepared"])
    assert await world.held(plan) == (payer - 600 - 100, 0)


async def test_a_prepare_whose_nonce_was_taken(world: GatewayWorld, service: ParticipantProcess) -> None:
    """Nothing is voted, neither YES nor NO, and nothing is sent again; an abort, which is another order, still bars the leg."""
    plan = world.plan(600)
    before = await world.held(plan)
    command = world.command(plan)

    async def send() -> None:
        await world.harness.stub.Prepare(commands.prepare_request(command), timeout=CALL_SECONDS)

    taker = await taken_away(world, service, send)
    report = await assert_left_to_a_person(world, service, plan, lambda: world.harness.send_prepare(command), taker)
    assert (report.phase, report.HasField("vote")) == (leg_pb2.LEG_PHASE_PREPARING, False)
    assert [each["purpose"] for each in await transactions(service, plan)] == ["preparing"]
    assert await world.events(plan) == []
    assert (await world.harness.abort(plan)).verdict == DONE
    assert (await world.events(plan), await world.chain.leg_status(plan.header.digest, LEG)) == (["Tombstoned"], LegStatus.ABORTED)
    assert await world.held(plan) == before
