"""The gateway's own process, before the real bank, does with an undertaking what every participant must do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio
from real_bank import BANK_BIC, OUR_BIC, SCHEMA_FOLDER, Bank
from real_trade import LEG, guarantee, state

from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, ParticipantConformance, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess


async def new_plan() -> PlanCase:
    return guarantee(1_000_00)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(bank: Bank, participant_for: Callable[..., Awaitable[ParticipantProcess]]) -> ParticipantProcess:
    return await participant_for(
        "bank-gateway",
        own_bic=OUR_BIC,
        bank_bic=BANK_BIC,
        currencies=["EUR"],
        rail={"http": {"url": bank.rail_url, "together": True}},
        schemas=str(SCHEMA_FOLDER),
        inquiry_seconds=0.5,
        instruments={"drafts_held": True},
    )


@pytest_asyncio.fixture(loop_scope="session")
async def harness(bank: Bank, service: ParticipantProcess) -> AsyncIterator[ParticipantHarness]:
    await bank.behave()
    stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
    yield ParticipantHarness("bank-gateway", stub, LEG, new_plan)
    await bank.sound()


class TestConformance(ParticipantConformance):
    """The suite."""


async def test_killed_while_it_stores_the_answer(bank: Bank, service: ParticipantProcess, harness: ParticipantHarness) -> None:
    """The process is killed inside the transaction that takes the bank's notification: the next one knows the undertaking, issued once."""
    plan = await new_plan()
    vote = await harness.prepare(plan)
    await service.dies_at("bank-gateway.receive.in_tx", lambda: harness.commit(plan, vote.report))
    stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
    again = ParticipantHarness("bank-gateway", stub, LEG, new_plan)
    assert (await again.commit(plan, vote.report)).verdict == DONE
    assert await state(bank, plan) == "ISSUED"
