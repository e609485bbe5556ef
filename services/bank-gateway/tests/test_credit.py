"""Intraday credit mid-plan, at the real bank: drawn at Prepare, given back at Abort, and told apart from any other refusal when it is denied."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from real_bank import PAYEE, POOR, RICH, THIN, Gateway, outcome_of, refusal_of, transfer, until

from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_kit.statements import OutcomeKind
from lockstep_testkit.factories import PlanCase


@pytest_asyncio.fixture(loop_scope="session")
async def borrowing(gateway: Gateway) -> AsyncIterator[PlanCase]:
    """A payment of 100.00 by somebody who has 25.00; the provider lends, and nothing is drawn before."""
    await gateway.bank.line("GRANTED")
    assert await gateway.bank.drawn() == 0
    yield transfer(debtor=THIN)
    await gateway.bank.line("GRANTED")


def uetr_of(plan: PlanCase) -> str:
    return references(plan.plan_id, LegId("cash")).uetr


async def test_drawn_at_prepare_given_back_at_abort(gateway: Gateway, borrowing: PlanCase) -> None:
    """What is missing is lent with the hold, and the provider has all of it back when the leg is released."""
    await gateway.held(borrowing)
    assert await gateway.bank.drawn() == 75_00
    await gateway.abort(borrowing)
    await gateway.reaches(borrowing, Phase.RELEASED)
    assert await gateway.bank.drawn() == 0
    assert await gateway.bank.postings(borrowing) == ["DRAW", "HOLD", "RELEASE", "REPAY"]
    assert await gateway.bank.booked(borrowing) == {}


async def test_denied_at_prepare(gateway: Gateway, borrowing: PlanCase) -> None:
    """The provider denies the credit: a signed NO, LIQUIDITY_DENIED; the same want of money without a line is BANK_PREPARE_FAILED."""
    await gateway.bank.misbehave("deny_credit", uetr=uetr_of(borrowing))
    for plan, reason, code in (
        (borrowing, "LIQUIDITY_DENIED", "AM23"),
        (transfer(2000_00, debtor=THIN), "LIQUIDITY_DENIED", "AM23"),
        (transfer(debtor=POOR), "BANK_PREPARE_FAILED", "AM04"),
    ):
        await gateway.prepare(plan)
        refusal = refusal_of(await gateway.reaches(plan, Phase.REFUSED))
        assert (refusal.reason, refusal.outside_code) == (reason, code)
        assert await gateway.bank.booked(plan) == {}
    assert await gateway.bank.drawn() == 0


async def test_withdrawn_while_held(gateway: Gateway, borrowing: PlanCase) -> None:
    """The provider wants its money back mid-plan: the promise is withdrawn by a signed refusal, LIQUIDITY_DENIED; other holds stay."""
    other = transfer()
    await gateway.held(borrowing)
    await gateway.held(other)
    assert await gateway.bank.line("WITHDRAWN") == 1
    outcome = outcome_of(await gateway.reaches(borrowing, Phase.REFUSED))
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("LIQUIDITY_DENIED", "AM23")
    assert await gateway.bank.drawn() == 0
    await gateway.abort(borrowing)
    await gateway.reaches(borrowing, Phase.RELEASED)
    await gateway.commit(other)
    await gateway.reaches(other, Phase.COMMITTED)
    assert await gateway.bank.booked(other) == {RICH: -100_00, PAYEE: 100_00}


async def test_withdrawn_when_the_key_is_shown(gateway: Gateway, borrowing: PlanCase) -> None:
    """The plan was decided on the bank's word that it holds the money: whatever its reason, taking it back now is a broken promise."""
    await gateway.held(borrowing)
    await gateway.bank.misbehave("lose", message="pacs.002", uetr=uetr_of(borrowing))
    await gateway.bank.line("WITHDRAWN")

    async def ended() -> bool:
        return await gateway.bank.state(borrowing) == "REJECTED"

    await until(ended, "end of the hold")
    assert await gateway.phase(borrowing) is Phase.PREPARED
    await gateway.commit(borrowing)
    refusal = outcome_of(await gateway.reaches(borrowing, Phase.REFUSED)).refusal
    assert refusal is not None
    assert (refusal.reason, refusal.outside_code) == ("BANK_COMMIT_FAILED", "AM23")
    assert await gateway.bank.drawn() == 0


async def test_repaid_out_of_what_comes_in(gateway: Gateway, borrowing: PlanCase) -> None:
    """Commit leaves a debt that is due; the next settlement to the account repays it before its owner has anything of it."""
    await gateway.held(borrowing)
    await gateway.commit(borrowing)
    await gateway.reaches(borrowing, Phase.COMMITTED)
    assert await gateway.bank.drawn() == 75_00
    back = await gateway.bank.get(f"/accounts/{THIN}")
    assert (back["booked_minor"], back["held_minor"]) == (0, 0)
    incoming = transfer(100_00, creditor=THIN)
    await gateway.held(incoming)
    await gateway.commit(incoming)
    await gateway.reaches(incoming, Phase.COMMITTED)
    assert await gateway.bank.drawn() == 0
    assert (await gateway.bank.get(f"/accounts/{THIN}"))["booked_minor"] == 25_00


@pytest.mark.parametrize("stage", ["payment", "release"])
async def test_refusal_gives_the_credit_back(gateway: Gateway, borrowing: PlanCase, stage: str) -> None:
    """Refused before or after the hold, for whatever reason: nothing stays drawn."""
    await gateway.bank.misbehave("refuse", stage=stage, reason="AC06", uetr=uetr_of(borrowing))
    await gateway.prepare(borrowing)
    if stage == "release":
        await gateway.reaches(borrowing, Phase.PREPARED)
        await gateway.commit(borrowing)
    await gateway.reaches(borrowing, Phase.REFUSED)
    assert await gateway.bank.drawn() == 0
