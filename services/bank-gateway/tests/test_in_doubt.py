"""A bank that loses, doubles, delays and contradicts what it says, or is away: nothing is guessed, nothing is booked twice, and people are told."""

from __future__ import annotations

import asyncio

import pytest
from real_bank import PAYEE, RICH, Gateway, evidence_of, outcome_of, transfer, until

from bank_gateway import http_rail
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
    await gateway.bank.misbehave("delay", message="pacs.002", uetr=uetr_of(plan), delay_ms=8_000)
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
    """A camt.054 with another amount or currency settles nothing, calls a person, and each of its entries is kept once, however often it is told."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("misbook", field=field, uetr=uetr_of(plan))
    await gateway.commit(plan)
    assert "instead of 100.00 EUR" in await gateway.troubled(plan)
    await asked_again(gateway, plan)
    assert await gateway.phase(plan) is Phase.COMMITTING
    debit, credit = [each for each in await gateway.matters() if each["uetr"] == uetr_of(plan)]
    assert (debit["place"], credit["place"], debit["message_sha256"]) == (0, 1, credit["message_sha256"])
    assert (debit["kind"], debit["plan_id"], debit["leg_id"]) == ("BOOKING_DIFFERS", plan.plan_id, "cash")


async def test_booking_under_another_uetr(gateway: Gateway) -> None:
    """A camt.054 that names a payment nobody knows settles nothing, is kept as an open matter, and is told on the leg whose reference it names."""
    plan, other = transfer(), transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("misbook", field="uetr", uetr=uetr_of(plan))
    await gateway.commit(plan)
    assert "not known here" in await gateway.troubled(plan)
    await gateway.held(other)
    await asked_again(gateway, plan)
    assert await gateway.phase(plan) is Phase.COMMITTING
    matters = [each for each in await gateway.matters() if each["plan_id"] == plan.plan_id]
    assert {each["kind"] for each in matters} == {"UNKNOWN_PAYMENT"}
    assert {each["end_to_end_id"] for each in matters} == {references(plan.plan_id, LegId("cash")).end_to_end_id}
    assert uetr_of(plan) not in {each["uetr"] for each in matters}
    assert (await gateway.record(other)).trouble == ""


async def test_status_without_booking(gateway: Gateway) -> None:
    """ACSC alone settles nothing, however often it is said; a bank that forgot to book is shown the key again, and books once."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("status_without_booking", uetr=uetr_of(plan), times=2)
    await gateway.commit(plan)
    await asked_again(gateway, plan)
    assert await gateway.phase(plan) is Phase.COMMITTING
    assert await gateway.bank.booked(plan) != SETTLED
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == SETTLED
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


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


async def asked_again(gateway: Gateway, plan: PlanCase) -> None:
    """Until the bank was asked about a payment in the phase in which it is now."""

    async def asked() -> bool:
        query = "select from bank_payment join participant_leg using (plan_id, leg_id) where uetr = $1 and inquiries_since = phase_since"
        return bool(await gateway.rows(query, uetr_of(plan)))

    await until(asked, "question")
    await asyncio.sleep(0.3)


async def told_everything(gateway: Gateway) -> None:
    """Until the mailbox is read to its end: a hold that is placed now is told after everything before it."""
    await gateway.bank.behave()
    await gateway.held(transfer())


async def test_cancelled_and_then_settled(gateway: Gateway) -> None:
    """ACSC after CNCL calls a person from the first word on; the signed release stays, since no booking follows."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("contradict", stage="cancellation", says="ACSC", uetr=uetr_of(plan))
    await gateway.abort(plan)
    released = await gateway.reaches(plan, Phase.RELEASED)
    assert "ACSC" in await gateway.troubled(plan)
    record = await gateway.record(plan)
    assert (record.fence.phase, record.outcome) == (Phase.RELEASED, released.outcome)
    assert await gateway.bank.booked(plan) == {}


@pytest.mark.parametrize("says", ["ACSC", "ACFW"])
async def test_refused_and_then_taken(gateway: Gateway, says: str) -> None:
    """After RJCT comes the opposite: the signed NO stays, a person is called, and the Abort that follows finds nothing held."""
    plan = transfer(5_000_000_00)
    await gateway.bank.misbehave("contradict", stage="payment", says=says, uetr=uetr_of(plan))
    await gateway.prepare(plan)
    refused = await gateway.reaches(plan, Phase.REFUSED)
    trouble = await gateway.troubled(plan)
    # The bank may have been asked meanwhile, and have said again that it refuses: another contradiction, of what it had just said.
    assert says in trouble or "RJCT" in trouble
    assert (await gateway.record(plan)).vote == refused.vote
    await gateway.abort(plan)
    if says == "ACFW":
        await gateway.reaches(plan, Phase.RELEASED)
        return
    # Money that moved by the bank's word is never told as released, whatever the bank says next.
    await asked_again(gateway, plan)
    record = await gateway.record(plan)
    assert (record.fence.phase, record.trouble != "") == (Phase.ABORTING, True)


async def test_pending_cancellation(gateway: Gateway) -> None:
    """PDCR releases nothing; the bank is asked again until it decides."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("pend", uetr=uetr_of(plan))
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    answers = [row["octets"] for row in await gateway.kept(plan, "IN") if row["kind"].startswith("camt.029")]
    assert [b"PDCR" in octets for octets in answers] == [True, *[False] * (len(answers) - 1)]
    assert await gateway.bank.state(plan) == "CANCELLED"


async def test_forgotten_payment_and_forgotten_release(gateway: Gateway) -> None:
    """What the bank acknowledged and forgot: the payment is a NO by its own word (TM01), the release is made again and books once."""
    lost, plan = transfer(), transfer()
    await gateway.bank.misbehave("forget", stage="payment", uetr=uetr_of(lost))
    await gateway.bank.misbehave("forget", stage="release", uetr=uetr_of(plan))
    await gateway.prepare(lost)
    await gateway.reaches(lost, Phase.REFUSED)
    assert await gateway.bank.state(lost) == "TOMBSTONED"
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_answers_lost_for_long(gateway: Gateway) -> None:
    """Twenty answers in a row are lost: the bank is asked ever again, ever more rarely up to the longest wait, and the leg ends as the book says."""
    await gateway.close()
    gateway.changes = {"inquiry_seconds": 0.1, "inquiry_seconds_max": 0.3}
    await gateway.open()
    plan = transfer()
    await gateway.bank.misbehave("lose", message="pacs.002", uetr=uetr_of(plan), times=20)
    await gateway.held(plan)
    questions = [each for each in await gateway.bank.received(plan) if each["kind"].startswith("pacs.028")]
    assert len(questions) >= 20
    assert len({each["idempotency_key"] for each in questions}) == len(questions)


async def test_acknowledgement_that_never_comes(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bank carries out and keeps us waiting: what timed out is sent again as a possible duplicate, and money is held and moved once."""
    monkeypatch.setattr(http_rail, "REQUEST_SECONDS_MAX", 3.0)
    await gateway.close()
    await gateway.open()
    plan = transfer()
    for stage in ("payment", "release"):
        await gateway.bank.misbehave("pause", stage=stage, uetr=uetr_of(plan), delay_ms=6_000)
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]
    assert await gateway.bank.booked(plan) == SETTLED
