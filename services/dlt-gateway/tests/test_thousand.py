"""Many legs, prepared and then committed, while one of the gateway's processes is killed every second: each takes effect once, and nothing is left over.

LEGS legs, a covering number unless told otherwise; `make test-dlt LEGS=1000` is the whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import pytest_asyncio
from gateway_world import LEG, plan_over, prepare_command

from lockstep.participant.v1 import leg_pb2, participant_service_pb2, participant_service_pb2_grpc
from lockstep_contracts.escrow import leg_key
from lockstep_contracts.events import Committed, Event, Prepared, decode_log
from lockstep_kit.convert import vote_from_pb
from lockstep_kit.plan import TokenTransfer
from lockstep_testkit import commands
from lockstep_testkit.chains import HOLDER, MINTED, SCALE, SettlementChain, draw_address
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, PENDING
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.strict_node import StrictNode

LEGS: Final = int(os.environ.get("LEGS", "200"))
#: Legs of one command, and commands under way at once: small enough that there is something to kill at every moment.
BATCH: Final = 10
UNDER_WAY: Final = 10
REPLICAS: Final = 4
PAYEES: Final = 40
KILL_EVERY_SECONDS: Final = 1.0
#: How long a process serves before it may be killed again: on a slow machine it would be killed before it has done anything.
SERVED_SECONDS_MIN: Final = 1.5
#: How long an answer is waited for, and how long all answers of one batch.
CALL_SECONDS: Final = 5.0
BATCH_SECONDS_MAX: Final = 1_200.0
FINALITY_DEPTH: Final = 1
#: What says that nobody knows whether the command arrived.
UNANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
#: Of a call that found no process to go to.
NOBODY_THERE: Final = "failed to connect"
#: Most results that a page of ListLegs has.
PAGE: Final = 500


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], settlement_chain: SettlementChain, endpoint: StrictNode
) -> Sequence[ParticipantProcess]:
    """The gateway's processes, over one database."""
    first = await participant_for(
        "dlt-gateway",
        chain=settlement_chain.settings("dlt-gateway") | {"rpc_urls": [endpoint.url], "finality_depth": FINALITY_DEPTH},
        escrow=settlement_chain.escrow,
        tokens={settlement_chain.asset: SCALE},
        judge_seconds=0.3,
    )
    return [first, *[await first.replica(number) for number in range(2, REPLICAS + 1)]]


@dataclass
class Killer:
    """Kills the process that has served for longest, every second, as a power failure would, and has it started again."""

    replicas: Sequence[ParticipantProcess]
    kills: int = 0
    serving_since: dict[str, float] = field(default_factory=dict)
    #: How long its last start took.
    start_seconds: dict[str, float] = field(default_factory=dict)
    struck: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        self.serving_since = {each.name: time.monotonic() for each in self.replicas}
        while True:
            await asyncio.sleep(0.05)
            victim = self.victim()
            if victim is None:
                continue
            del self.serving_since[victim.name]
            # A task of its own: once begun, it is carried out whatever ends this one.
            self.struck.add(asyncio.create_task(self.strike(victim)))
            await asyncio.sleep(KILL_EVERY_SECONDS)

    def victim(self) -> ParticipantProcess | None:
        """The process that has served for longest, if it has served long enough."""
        serving = [each for each in self.replicas if each.name in self.serving_since]
        oldest = min(serving, key=lambda each: self.serving_since[each.name], default=None)
        if oldest is None:
            return None
        # At least as long as its start took: however slow the machine, half of the processes serve, and the legs get on.
        served = time.monotonic() - self.serving_since[oldest.name]
        return None if served < max(SERVED_SECONDS_MIN, self.start_seconds.get(oldest.name, 0.0)) else oldest

    async def strike(self, victim: ParticipantProcess) -> None:
        await victim.kill()
        self.kills += 1
        killed_at = time.monotonic()
        await victim.supervisor.restart(victim.name)
        self.serving_since[victim.name] = time.monotonic()
        self.start_seconds[victim.name] = self.serving_since[victim.name] - killed_at

    @contextlib.asynccontextmanager
    async def killing(self) -> AsyncIterator[None]:
        """Kills as long as it is entered; afterwards all processes serve again."""
        task = asyncio.create_task(self.run())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.gather(*self.struck)


@dataclass
class Coordinator:
    """Commands legs, and repeats what was not answered, at any of the processes."""

    stubs: Iterator[participant_service_pb2_grpc.ParticipantServiceStub]
    #: Calls that reached a process, and were never answered.
    unanswered: int = 0

    @classmethod
    async def of(cls, replicas: Sequence[ParticipantProcess]) -> Coordinator:
        return cls(
            itertools.cycle([participant_service_pb2_grpc.ParticipantServiceStub(await each.channel()) for each in replicas])
        )

    async def call(self, method: str, request: Any) -> Any:
        """One answer, from whichever process gives one."""
        while True:
            try:
                return await getattr(next(self.stubs), method)(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNANSWERED:
                    raise
                self.unanswered += NOBODY_THERE not in (error.details() or "")
                await asyncio.sleep(0.1)

    async def done(self, count: int, send: Callable[[Sequence[int]], Awaitable[Any]]) -> list[leg_pb2.LegReport]:
        """Repeat the commands that are not done until all are, given the places of those that are sent."""
        reports: dict[int, leg_pb2.LegReport] = {}
        async with asyncio.timeout(BATCH_SECONDS_MAX):
            while waiting := [place for place in range(count) if place not in reports]:
                response = await send(waiting)
                for place, answer in zip(waiting, response.answers, strict=True):
                    assert answer.verdict in (DONE, PENDING), answer
                    if answer.verdict == DONE:
                        reports[place] = answer.report
        return [reports[place] for place in range(count)]

    async def settle(self, batch: Sequence[tuple[PlanCase, leg_pb2.PrepareCommand]]) -> None:
        """Prepare the legs of a batch, then commit them."""
        plans = [plan for plan, _ in batch]

        async def prepare(places: Sequence[int]) -> Any:
            return await self.call("Prepare", commands.prepare_request(*(batch[place][1] for place in places), wait=1.0))

        prepared = await self.done(len(plans), prepare)
        certificates = [plan.certificate(vote_from_pb(each.vote)) for plan, each in zip(plans, prepared, strict=True)]
        orders = [commands.commit(plan, LEG, each) for plan, each in zip(plans, certificates, strict=True)]

        async def commit(places: Sequence[int]) -> Any:
            chosen = [certificates[place] for place in places]
            return await self.call("Commit", commands.commit_request([orders[place] for place in places], *chosen, wait=1.0))

        await self.done(len(plans), commit)

    async def legs(self) -> list[leg_pb2.LegReport]:
        """Every leg that the gateway knows."""
        found: list[leg_pb2.LegReport] = []
        token = ""
        while True:
            request = participant_service_pb2.ListLegsRequest(page_size=PAGE, page_token=token)
            page = await self.call("ListLegs", request)
            found += page.reports
            token = page.next_page_token
            if not token:
                return found


def terms_of(plan: PlanCase) -> TokenTransfer:
    terms = plan.leg(LEG).terms
    assert isinstance(terms, TokenTransfer)
    return terms


async def events(chain: SettlementChain) -> list[Event | None]:
    """Everything that the escrow ever said, about whatever leg."""
    asked = {"address": chain.escrow, "fromBlock": "0x0", "toBlock": "latest"}
    logs = await chain.chain.node.call("eth_getLogs", asked)
    return [decode_log([bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:])) for log in logs]


async def assert_the_chain_says(chain: SettlementChain, plans: Sequence[PlanCase]) -> None:
    """By the escrow's events each leg was prepared once and committed once, and no other; by the balances nothing was made or lost."""
    said = await events(chain)
    keys = Counter(leg_key(plan.header.digest, LEG) for plan in plans)
    assert Counter(each.leg_key for each in said if isinstance(each, Prepared)) == keys
    assert Counter(each.leg_key for each in said if isinstance(each, Committed)) == keys
    about_legs = [each for each in said if each is not None and hasattr(each, "leg_key")]
    assert len(about_legs) == 2 * len(plans), Counter(type(each).__name__ for each in about_legs)
    owed: Counter[str] = Counter()
    for plan in plans:
        owed[terms_of(plan).payee] += terms_of(plan).amount.minor_units
    held = {payee: await chain.balance(payee) for payee in owed}
    assert held == dict(owed)
    payer, escrow = await chain.balance(chain.chain.address(HOLDER)), await chain.balance(chain.escrow)
    assert (payer, escrow, payer + escrow + sum(held.values())) == (MINTED - owed.total(), 0, MINTED)


async def assert_the_database_says(chain: SettlementChain, service: ParticipantProcess, legs: int) -> dict[str, Any]:
    """Each account's nonces are dense, and each was used by one transaction of ours; nothing is under way; each leg was carried once in each phase."""
    async with service.database.as_owner() as database:
        transactions = await database.fetch("select * from evm_transaction order by signer, nonce")
        attempts = await database.fetch("select * from evm_attempt")
        accounts = await database.fetch("select * from evm_signer")
        carried = await database.fetch(
            "select phase, count(*), count(distinct (plan_id, leg_id)) legs from chain_order group by phase"
        )
    assert Counter(row["state"] for row in transactions) == {"final": len(transactions)}
    for account in accounts:
        nonces = [row["nonce"] for row in transactions if row["signer"] == account["address"]]
        used = int(await chain.chain.node.call("eth_getTransactionCount", account["address"], "latest"), 16)
        assert (nonces, account["next_nonce"]) == (list(range(used)), used)
    mined = {}
    for row in attempts:
        found = await chain.chain.node.call("eth_getTransactionReceipt", "0x" + row["transaction_hash"].hex())
        if found is not None:
            assert row["transaction_id"] not in mined, "two attempts of one transaction were mined"
            mined[row["transaction_id"]] = found
    for row in transactions:
        receipt = mined[row["id"]]
        assert (receipt["transactionHash"], int(receipt["status"], 16)) == ("0x" + row["transaction_hash"].hex(), 1)
        assert receipt["from"].lower() == row["signer"].lower()
    assert {(row["phase"], row["count"], row["legs"]) for row in carried} == {("PREPARING", legs, legs), ("COMMITTING", legs, legs)}
    return {
        "transactions": len(transactions),
        "attempts": len(attempts),
        "transactions_by_account": sorted(Counter(row["signer"] for row in transactions).values()),
        "gas_per_leg": sum(row["gas_used"] for row in transactions) // legs,
    }


async def test_legs_under_kills(replicas: Sequence[ParticipantProcess], settlement_chain: SettlementChain) -> None:
    """However often processes are killed: each leg is prepared once and committed once, each payee has its sum, no nonce is lost."""
    chain = settlement_chain
    payees = [draw_address() for _ in range(PAYEES)]
    plans = [plan_over(chain.transfer(1_000 + number, payee=payees[number % PAYEES])) for number in range(LEGS)]
    prepared = [(plan, prepare_command(chain, plan, LEG)) for plan in plans]
    await chain.chain.begin_mining()
    coordinator = await Coordinator.of(replicas)
    killer = Killer(replicas)
    room = asyncio.Semaphore(UNDER_WAY)

    async def settle(batch: Sequence[tuple[PlanCase, leg_pb2.PrepareCommand]]) -> None:
        async with room:
            await coordinator.settle(batch)

    began = time.monotonic()
    async with killer.killing(), asyncio.TaskGroup() as group:
        for start in range(0, LEGS, BATCH):
            group.create_task(settle(prepared[start : start + BATCH]))
    seconds = time.monotonic() - began
    async with asyncio.timeout(BATCH_SECONDS_MAX):
        known = await coordinator.legs()
    assert Counter(each.phase for each in known) == {leg_pb2.LEG_PHASE_COMMITTED: LEGS}
    assert {each.plan_id for each in known} == {plan.plan_id for plan in plans}
    await assert_the_chain_says(chain, plans)
    figures = await assert_the_database_says(chain, replicas[0], LEGS)
    document = {"legs": LEGS, "kills": killer.kills, "unanswered": coordinator.unanswered, "seconds": round(seconds, 1), **figures}
    print(f"\nLEGS_RESULT {json.dumps(document)}")  # noqa: T201 - what the campaign is run for
    assert killer.kills >= max(3, LEGS // 50), document
    assert coordinator.unanswered, document
