"""A bank that loses, doubles, delays and contradicts what it says, or is away: nothing is guessed, nothing is booked twice, and people are told."""

from __future__ import annotations

import asyncio

import pytest
from real_bank import PAYEE, RICH, Gateway, evidence_of, outcome_of, transfer, until

from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId
from lockstep_testkit.factories import PlanCase

SETTLED = {RICH: -100_00, PAYEE: 100_00}


def uetr_of(plan: PlanCase) -> str:
    return references(plan.plan_id, LegId("cash")).uetr


def kinds(messages: list[dict[str, str]]) -> list[str]:
    return [message["kind"][:8] for message in messages]


async def test_lost_answer_to_a_payment_is_asked_for(gateway: Gateway) -> None:
    """The hold's confirmation is lost: pacs.028 brings it again, and the leg votes YES."""
    plan = transfer()
    await gateway.bank.misbehave("lose", message="pacs.002", uetr=uetr_of(plan))
    await gateway.held(plan)
    assert kinds(await gateway.bank.received(plan)) == ["pacs.008", "pacs.028"]
    assert await gateway.bank.state(plan) == "HELD"


async def test_lost_settlement_is_asked_for(gateway: Gateway) -> None:
    """Status and booking are lost: pacs.028 brings both again; the money moved once."""
    plan = transfer()
    await gateway.held(plan)
    for message in ("pacs.002", "camt.054"):
        await gateway.bank.misbehave("lose", message=message, uetr=uetr_of(plan))
    await gateway.commit(plan)
    record = await gateway.reaches(plan, Phase.COMMITTED)
    assert evidence_of(record).status == "ACSC"
    assert await gateway.bank.booked(plan) == SETTLED
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_lost_cancellation_is_asked_for(gateway: Gateway) -> None:
    """The answer to the cancellation is lost: it is asked for again under a new name, and the leg is released."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("lose", message="camt.029", uetr=uetr_of(plan))
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    cancellations = [message for message in await gateway.bank.received(plan) if message["kind"].startswith("camt.056")]
    assert len({message["idempotency_key"] for message in cancellations}) == len(cancellations) >= 2
    assert await gateway.bank.booked(plan) == {}


async def test_bank_refuses_to_cancel(gateway: Gateway) -> None:
    """A refused cancellation is neither a release nor forgotten: the bank is asked again until it grants it."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("refuse", stage="cancellation", reason="LEGL", uetr=uetr_of(plan))
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    first = next(row for row in await gateway.kept(plan, "IN") if row["kind"].startswith("camt.029"))
    assert b"LEGL" in first["octets"]
    assert await gateway.bank.state(plan) == "CANCELLED"


async def test_doubled_answers_change_nothing(gateway: Gateway) -> None:
    """Everything three times: one vote, one outcome, one booking, no trouble, and each message is kept once."""
    plan = transfer()
    await gateway.bank.misbehave("duplicate", copies=3, times=20)
    await gateway.held(plan)
    vote = (await gateway.record(plan)).vote
    await gateway.commit(plan)
    settled = await gateway.reaches(plan, Phase.COMMITTED)
    await told_everything(gateway)
    record = await gateway.record(plan)
    assert (record.vote, record.outcome, record.trouble) == (vote, settled.outcome, "")
    assert record.fence.revision == settled.fence.revision
    assert kinds(list(await gateway.kept(plan, "IN"))) == ["pacs.002", "pacs.002", "camt.054"]
    assert await gateway.bank.booked(plan) == SETTLED


async def test_late_answers(gateway: Gateway) -> None:
    """The booking comes before its status: nothing is settled until both are there."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("delay", message="pacs.002", uetr=uetr_of(plan), delay_ms=1200)
    await gateway.commit(plan)

    async def booking() -> bool:
        return any(row["kind"].startswith("camt.054") for row in await gateway.kept(plan, "IN"))

    await until(booking, "camt.054")
    assert await gateway.phase(plan) is Phase.COMMITTING
    await gateway.reaches(plan, Phase.COMMITTED)
    assert (await gateway.record(plan)).trouble == ""


async def test_contradiction_after_the_settlement(gateway: Gateway) -> None:
    """RJCT after ACSC and a booking calls a person; the phase and the signed outcome stay."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("contradict", stage="release", reason="AM04", uetr=uetr_of(plan))
    await gateway.commit(plan)
    settled = await gateway.reaches(plan, Phase.COMMITTED)
    assert "RJCT (AM04)" in await gateway.troubled(plan)
    record = await gateway.record(plan)
    assert (record.fence.phase, record.outcome) == (Phase.COMMITTED, settled.outcome)


async def test_contradiction_after_the_hold(gateway: Gateway) -> None:
    """RJCT after ACFW withdraws the promise; the Abort that follows finds the hold and has it cancelled."""
    plan = transfer()
    await gateway.bank.misbehave("contradict", stage="payment", reason="AM04", uetr=uetr_of(plan))
    await gateway.prepare(plan)
    await gateway.reaches(plan, Phase.REFUSED)
    assert await gateway.bank.state(plan) == "HELD"
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.state(plan) == "CANCELLED"


@pytest.mark.parametrize("field", ["amount", "currency"])
async def test_wrong_booking(gateway: Gateway, field: str) -> None:
    """A camt.054 with another amount or currency calls a person and settles nothing."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("misbook", field=field, uetr=uetr_of(plan))
    await gateway.commit(plan)
    assert "instead of 100.00 EUR" in await gateway.troubled(plan)
    assert await gateway.phase(plan) is Phase.COMMITTING


async def test_booking_under_another_uetr(gateway: Gateway) -> None:
    """A camt.054 that names another payment settles nothing, and does not keep what comes after it from being read."""
    plan, other = transfer(), transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("misbook", field="uetr", uetr=uetr_of(plan))
    await gateway.commit(plan)
    await gateway.held(other)
    await asyncio.sleep(0.5)
    assert await gateway.phase(plan) is Phase.COMMITTING


async def test_status_without_booking(gateway: Gateway) -> None:
    """ACSC alone settles nothing, however often it is said."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("status_without_booking", uetr=uetr_of(plan))
    await gateway.commit(plan)
    await asyncio.sleep(1.5)
    assert await gateway.phase(plan) is Phase.COMMITTING
    assert await gateway.bank.booked(plan) != SETTLED


async def test_booking_without_status(gateway: Gateway) -> None:
    """The status never comes by itself: it is asked for, and completes the settlement."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("book_without_status", uetr=uetr_of(plan))
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == SETTLED


async def test_bank_is_away(gateway: Gateway) -> None:
    """Away at each step: the gateway goes on trying, marks repeats as such, and the payment is booked once when the bank is back."""
    plan, given_up = transfer(), transfer()
    await gateway.bank.stop()
    await gateway.prepare(plan)
    await gateway.prepare(given_up)
    await gateway.abort(given_up)
    await tried(gateway, plan, 2)
    assert await gateway.phase(plan) is Phase.PREPARING
    await gateway.bank.start()
    await gateway.reaches(plan, Phase.PREPARED)
    await gateway.reaches(given_up, Phase.RELEASED)
    (payment, *_) = await gateway.bank.received(plan)
    assert "<PssblDplct>true</PssblDplct>" in payment["body"]
    await gateway.bank.stop()
    await gateway.commit(plan)
    await tried(gateway, plan, 2)
    assert await gateway.phase(plan) is Phase.COMMITTING
    await gateway.bank.start()
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == SETTLED
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]
    assert outcome_of(await gateway.record(plan)).refusal is None
    await gateway.bank.sound()


async def test_bank_dies_in_the_middle(gateway: Gateway) -> None:
    """Killed as soon as it has the payment, and as soon as it has the key: it forgot nothing that it acknowledged, and neither did we."""
    plan = transfer()
    await gateway.prepare(plan)
    await gateway.bank.stop()
    await gateway.bank.start()
    await gateway.reaches(plan, Phase.PREPARED)
    await gateway.commit(plan)
    await gateway.bank.stop()
    await gateway.bank.start()
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def tried(gateway: Gateway, plan: PlanCase, attempts: int) -> None:
    async def often() -> bool:
        rows = await gateway.rows("select attempts from bank_outbox where uetr = $1 order by id desc limit 1", uetr_of(plan))
        return bool(rows) and rows[0]["attempts"] >= attempts

    await until(often, f"{attempts} attempts")


async def told_everything(gateway: Gateway) -> None:
    """Until the mailbox is read to its end: a hold that is placed now is told after everything before it."""
    await gateway.bank.behave()
    await gateway.held(transfer())
