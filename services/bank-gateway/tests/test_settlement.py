"""A gateway and the real bank: what becomes of a leg, judged by the bank's book, the bank's files and the gateway's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from real_bank import (
    BANK_BIC,
    NOBODY,
    PAYEE,
    POOR,
    RICH,
    Gateway,
    evidence_of,
    outcome_of,
    promise_of,
    refusal_of,
    transfer,
    until,
    vote_of,
)

from bank_gateway.references import references
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, sha256
from lockstep_kit.statements import OutcomeKind, PromiseKind


async def test_settles(gateway: Gateway) -> None:
    """Held, voted YES until the hold ends, released with the key, booked once; the evidence names the very messages that are kept."""
    plan = transfer(123_45)
    await gateway.held(plan)
    assert await gateway.bank.state(plan) == "HELD"
    promise = promise_of(await gateway.record(plan))
    payment = await gateway.bank.payment(plan)
    assert payment is not None
    assert promise.kind is PromiseKind.GUARANTEED
    assert promise.expires_at == datetime.fromisoformat(payment["hold_until"])
    assert promise.expires_at >= plan.header.deadline
    assert (await gateway.commit(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.COMMITTED)
    assert record.trouble == ""
    assert await gateway.bank.booked(plan) == {RICH: -123_45, PAYEE: 123_45}
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]
    await gateway.bank.sound()
    evidence = evidence_of(record)
    assert (evidence.bank_bic, evidence.status) == (BANK_BIC, "ACSC")
    kept = {row["sha256"]: row for row in await gateway.kept(plan, "IN")}
    assert kept[evidence.message_sha256]["message_id"] == evidence.message_id
    assert kept[evidence.booking_sha256]["kind"] == "camt.054.001.13"
    assert evidence.booking_reference.encode() in kept[evidence.booking_sha256]["octets"]


async def test_every_message_is_kept_as_it_went(gateway: Gateway) -> None:
    """What the gateway kept and what the bank kept are the same octets, in both directions, with their hashes."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    sent = [(row["octets"], row["sha256"]) for row in await gateway.kept(plan, "OUT")]
    there = [message["body"].encode() for message in await gateway.bank.received(plan) if message["kind"].startswith("pacs")]
    assert [octets for octets, _ in sent] == there
    received = [(row["octets"], row["sha256"]) for row in await gateway.kept(plan, "IN")]
    assert [octets for octets, _ in received] == [message["body"].encode() for message in await gateway.bank.sent(plan)]
    assert all(sha256(octets) == digest for octets, digest in sent + received)


async def test_no_money_and_no_account(gateway: Gateway) -> None:
    """The bank's refusal is a signed NO with the bank's own reason, and nothing is held."""
    for debtor, code in ((POOR, "AM04"), (NOBODY, "AC01")):
        plan = transfer(debtor=debtor)
        assert (await gateway.prepare(plan)).rejection is None
        record = await gateway.reaches(plan, Phase.REFUSED)
        refusal = refusal_of(record)
        assert (refusal.reason, refusal.outside_code) == ("BANK_PREPARE_FAILED", code)
        assert await gateway.bank.state(plan) == "REJECTED"
        assert await gateway.bank.booked(plan) == {}


async def test_abort_gives_the_money_back(gateway: Gateway) -> None:
    """CNCL releases: signed with the camt.029, the hold is gone, and the key opens nothing any more."""
    plan = transfer()
    await gateway.held(plan)
    assert (await gateway.abort(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.RELEASED)
    assert (outcome_of(record).kind, evidence_of(record).status) == (OutcomeKind.RELEASED, "CNCL")
    assert await gateway.bank.state(plan) == "CANCELLED"
    assert await gateway.bank.booked(plan) == {}
    assert (await gateway.commit(plan)).rejection is not None


async def test_abort_of_an_unknown_leg_bars_it(gateway: Gateway) -> None:
    """NOOR is the tombstone: fence and bank both refuse the Prepare that comes late."""
    plan = transfer()
    assert (await gateway.abort(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.RELEASED)
    assert evidence_of(record).status == "RJCR"
    late = await gateway.prepare(plan)
    assert late.rejection is not None
    assert late.rejection.reason == "LEG_RELEASED"
    assert await gateway.bank.state(plan) == "TOMBSTONED"


async def test_abort_of_what_the_bank_refused(gateway: Gateway) -> None:
    """A refused leg that is aborted asks the bank once more, which answers ARJT: released."""
    plan = transfer(debtor=POOR)
    await gateway.prepare(plan)
    await gateway.reaches(plan, Phase.REFUSED)
    assert (await gateway.abort(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.RELEASED)
    assert record.trouble == ""
    assert b"ARJT" in (await gateway.kept(plan, "IN"))[-1]["octets"]


async def test_abort_crosses_the_payment(gateway: Gateway) -> None:
    """Prepared and aborted in one breath, the payment reaches the bank before its cancellation, and nothing is held at the end."""
    plans = [transfer() for _ in range(5)]
    for plan in plans:
        await gateway.prepare(plan)
        await gateway.abort(plan)
    for plan in plans:
        await gateway.reaches(plan, Phase.RELEASED)
        assert [message["kind"] for message in await gateway.bank.received(plan)][:2] == ["pacs.008.001.13", "camt.056.001.11"]
        assert await gateway.bank.state(plan) == "CANCELLED"
    await gateway.bank.sound()


async def test_abort_crosses_the_release(gateway: Gateway) -> None:
    """A delegated leg that is told to abort while the bank settles it ends as the bank's book says, and says so."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.commit(plan)
    assert (await gateway.abort(plan)).rejection is None

    async def ended() -> bool:
        return await gateway.phase(plan) in (Phase.COMMITTED, Phase.RELEASED)

    await until(ended, "end")
    settled = await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert settled == (await gateway.phase(plan) is Phase.COMMITTED)
    assert await gateway.bank.state(plan) == ("SETTLED" if settled else "CANCELLED")


async def test_abort_after_the_bank_settled(gateway: Gateway) -> None:
    """The bank has booked, its words are late, and the leg is told to abort: ARDT is asked about, and the leg ends executed."""
    plan = transfer()
    await gateway.held(plan)
    for message in ("pacs.002", "camt.054"):
        await gateway.bank.misbehave("delay", message=message, uetr=references(plan.plan_id, LegId("cash")).uetr, delay_ms=10_000)
    await gateway.commit(plan)

    async def booked() -> bool:
        return await gateway.bank.state(plan) == "SETTLED"

    await until(booked, "booking")
    assert (await gateway.abort(plan)).rejection is None
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_hold_that_lapses(gateway: Gateway) -> None:
    """The bank ends a hold: the promise is withdrawn by a signed refusal, and a Commit changes nothing."""
    plan = transfer()
    await gateway.bank.misbehave("expire_early", delay_ms=8_000)
    await gateway.held(plan)
    record = await gateway.reaches(plan, Phase.REFUSED)
    outcome = outcome_of(record)
    assert outcome.kind is OutcomeKind.REFUSED
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("BANK_COMMIT_FAILED", "AB03")
    assert vote_of(record).answer == promise_of(record)
    assert await gateway.bank.booked(plan) == {}


async def test_release_after_the_hold_lapsed(gateway: Gateway) -> None:
    """The hold's early end is not heard before the key is shown: the bank says so again, and the leg is refused; no money moves."""
    plan = transfer()
    await gateway.bank.misbehave("expire_early", delay_ms=600_000)
    await gateway.held(plan)
    await gateway.bank.misbehave("lose", message="pacs.002")
    assert await gateway.bank.command(f"/payments/{references(plan.plan_id, LegId('cash')).uetr}/expire") == {"expired": True}
    assert await gateway.phase(plan) is Phase.PREPARED
    await gateway.commit(plan)
    record = await gateway.reaches(plan, Phase.REFUSED)
    refusal = outcome_of(record).refusal
    assert refusal is not None
    assert (refusal.reason, refusal.outside_code) == ("BANK_COMMIT_FAILED", "AB03")
    assert await gateway.bank.booked(plan) == {}


async def test_bank_breaks_its_promise(gateway: Gateway) -> None:
    """A release that the bank refuses though it had said that it holds the money is a signed refusal, by the name of a broken promise."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("refuse", stage="release", reason="AC06")
    await gateway.commit(plan)
    outcome = outcome_of(await gateway.reaches(plan, Phase.REFUSED))
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("BANK_COMMIT_FAILED", "AC06")
    assert await gateway.bank.booked(plan) == {}


async def test_account_is_blocked_after_the_hold(gateway: Gateway) -> None:
    """A hold is a hold: what is blocked after it was placed is settled or refused by the bank, and the leg says the same."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.set_status(RICH, "BLOCKED")
    try:
        await gateway.commit(plan)

        async def ended() -> bool:
            return await gateway.phase(plan) in (Phase.COMMITTED, Phase.REFUSED)

        await until(ended, "end")
        settled = bool(await gateway.bank.booked(plan))
        assert settled == (await gateway.phase(plan) is Phase.COMMITTED)
    finally:
        await gateway.bank.set_status(RICH, "OPEN")


async def test_hold_further_ahead_than_agreed(gateway: Gateway) -> None:
    """A promise that would have to stand longer than the bank holds money is a NO at once, and the bank is not asked."""
    plan = transfer(deadline=datetime.now(UTC) + timedelta(days=9))
    await gateway.prepare(plan)
    assert refusal_of(await gateway.reaches(plan, Phase.REFUSED)).outside_code == "CH03"
    assert await gateway.bank.payment(plan) is None


async def test_many_at_once(gateway: Gateway) -> None:
    """Sixty legs, two thirds settled and one third given up, all at the same time: every one ends as it was told to, and the book is right."""
    plans = [transfer(10_00 + number) for number in range(60)]
    before = (await gateway.bank.get(f"/accounts/{PAYEE}"))["booked_minor"]
    for plan in plans:
        await gateway.prepare(plan)
    for plan in plans:
        await gateway.reaches(plan, Phase.PREPARED)
    settled, given_up = [plan for i, plan in enumerate(plans) if i % 3], plans[::3]
    for plan in plans:
        await (gateway.abort(plan) if plan in given_up else gateway.commit(plan))
    for plan in settled:
        await gateway.reaches(plan, Phase.COMMITTED)
    for plan in given_up:
        await gateway.reaches(plan, Phase.RELEASED)
    moved = (await gateway.bank.get(f"/accounts/{PAYEE}"))["booked_minor"] - before
    assert moved == sum(10_00 + i for i in range(60) if i % 3)
    assert (await gateway.bank.get(f"/accounts/{RICH}"))["held_minor"] == 0
    await gateway.bank.sound()
