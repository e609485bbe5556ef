"""The gateway's own process, before the real bank, does what every participant must do; in its other profiles too, by the modules beside this one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest
import pytest_asyncio
from real_bank import ACCEPTS_RISK, BANK_BIC, OUR_BIC, PAYEE, RICH, SCHEMA_FOLDER, Bank, transfer

from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, ParticipantConformance, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess

PROFILE: Final = "conditional"


async def new_plan() -> PlanCase:
    # Accepting the risk of expiry, so that the leg may be committed without being delegated to.
    return transfer(policy=ACCEPTS_RISK)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(
    bank: Bank, participant_for: Callable[..., Awaitable[ParticipantProcess]], request: pytest.FixtureRequest
) -> ParticipantProcess:
    return await participant_for(
        "bank-gateway",
        profile=request.module.PROFILE,
        own_bic=OUR_BIC,
        bank_bic=BANK_BIC,
        currencies=["EUR"],
        rail={"http": {"url": bank.rail_url, "together": True}},
        schemas=str(SCHEMA_FOLDER),
        inquiry_seconds=0.5,
    )


@pytest_asyncio.fixture(loop_scope="session")
async def harness(bank: Bank, service: ParticipantProcess) -> AsyncIterator[ParticipantHarness]:
    await bank.behave()
    stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
    yield ParticipantHarness("bank-gateway", stub, "cash", new_plan)
    await bank.sound()


class TestConformance(ParticipantConformance):
    """The suite."""


async def test_killed_while_it_stores_the_answer(bank: Bank, service: ParticipantProcess, harness: ParticipantHarness) -> None:
    """The process is killed inside the transaction that takes the bank's answer to the key: settled by the next one, and booked once."""
    plan = await new_plan()
    vote = await harness.prepare(plan)
    await service.dies_at("bank-gateway.receive.in_tx", lambda: harness.commit(plan, vote.report))
    stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
    again = ParticipantHarness("bank-gateway", stub, "cash", new_plan)
    assert (await again.commit(plan, vote.report)).verdict == DONE
    assert await bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await bank.postings(plan) in (["HOLD", "SETTLE"], ["PAYMENT"])
