"""Each profile before the real bank: what is sent when, what becomes of the leg, and where the money is, by the bank's own book."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from real_bank import (
    INSTITUTION_A,
    NOBODY,
    NOSTRO_A,
    NOSTRO_B,
    PAYEE,
    POOR,
    RICH,
    Bank,
    Gateway,
    between_institutions,
    evidence_of,
    outcome_of,
    promise_of,
    refusal_of,
    transfer,
    until,
)

from lockstep_kit.fence import Phase
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.statements import OutcomeKind, PromiseKind
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase

GATEWAY = "spiffe://lockstep.local/bank-gateway"
#: Messages to the bank about a leg that settles, by profile.
SAID = {
    "conditional": ["pacs.008.001.13"],
    "reservation": ["camt.103.001.03", "pacs.008.001.13"],
    "plain": ["pacs.008.001.13"],
}
POSTED = {"conditional": ["HOLD", "SETTLE"], "reservation": ["HOLD", "SETTLE"], "plain": ["PAYMENT"]}
UNSENT = ("reservation", "plain")

Opened = Callable[..., Awaitable[Gateway]]


@pytest_asyncio.fixture(loop_scope="session")
async def opened(
    bank: Bank, database_for: Callable[..., Awaitable[TestDatabase]], tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[Opened]:
    """A gateway of a profile; at the end its ledger and the bank's book must be right, and hold nothing for a leg that is over."""
    await bank.behave()
    running: list[Gateway] = []

    async def open_gateway(profile: str, **changes: object) -> Gateway:
        gateway = Gateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY), {"profile": profile, **changes})
        await gateway.begin()
        running.append(gateway)
        return gateway

    yield open_gateway
    for gateway in running:
        await gateway.close()
        assert await gateway.wrong_on_the_books() == []
        over = await gateway.rows("select plan_id, leg_id from participant_leg where phase in ('COMMITTED', 'RELEASED')")
        ended = {row["uetr"] for row in await gateway.rows("select * from bank_payment") if (row["plan_id"], row["leg_id"]) in over}
        assert not ended & {hold["uetr"] for hold in (await bank.get("/book"))["holds"]}
    await bank.sound()


async def kinds(gateway: Gateway, plan: PlanCase) -> list[str]:
    """Definitions of the messages that went to the bank about a leg; each is among what the bank received, byte for byte."""
    own = await gateway.kept(plan, "OUT")
    there = {each["body"].encode() for each in (await gateway.bank.get("/messages"))["received"]}
    assert {row["octets"] for row in own} <= there
    return [row["kind"] for row in own]


async def draft(gateway: Gateway) -> str:
    (row,) = await gateway.rows("select state from bank_draft")
    return str(row["state"])


@pytest.mark.parametrize("profile", SAID)
async def test_settles(opened: Opened, profile: str) -> None:
    """Prepared as the profile promises, committed, booked once; where the payment is kept unsent, the bank hears of it at the Commit and no earlier."""
    gateway, plan = await opened(profile), transfer(123_45)
    await gateway.held(plan)
    promise = promise_of(await gateway.record(plan))
    assert promise.expires_at is not None
    assert promise.expires_at >= plan.header.deadline
    assert promise.kind is (PromiseKind.BEST_EFFORT if profile == "plain" else PromiseKind.GUARANTEED)
    place = "INSTRUCTED" if profile == "plain" else "HELD"
    assert await gateway.on_the_books(RICH) == {"LINE": -123_45, place: 123_45}
    if profile in UNSENT:
        assert await gateway.bank.payment(plan) is None
        assert await draft(gateway) == "KEPT"
    assert await gateway.bank.reservation(plan) == ("RESERVED" if profile == "reservation" else None)
    assert (await gateway.commit(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.COMMITTED)
    assert record.trouble == ""
    assert await gateway.bank.booked(plan) == {RICH: -123_45, PAYEE: 123_45}
    assert await gateway.bank.postings(plan) == POSTED[profile]
    assert await gateway.on_the_books(RICH) == {"LINE": -123_45, "SETTLED": 123_45}
    assert await kinds(gateway, plan) == SAID[profile]
    assert await gateway.bank.reservation(plan) == ("PAID" if profile == "reservation" else None)
    assert evidence_of(record).status == "ACSC"


async def test_reservation_is_promised_until_its_agreed_end(opened: Opened) -> None:
    """The promise ends when the reservation does by the agreement, which is never later than the bank gives it back."""
    gateway, plan = await opened("reservation"), transfer()
    await gateway.held(plan)
    (found,) = (await gateway.bank.get("/reservations", uetr=(await gateway.rows("select uetr from bank_payment"))[0]["uetr"]))[
        "reservations"
    ]
    promise, asked = promise_of(await gateway.record(plan)), (await gateway.rows("select asked_at from bank_payment"))[0][0]
    assert promise.expires_at is not None
    assert abs(promise.expires_at - asked - timedelta(hours=144)) < timedelta(milliseconds=2)
    assert promise.expires_at <= datetime.fromisoformat(found["hold_until"])


@pytest.mark.parametrize("profile", UNSENT)
async def test_abort_before_anything_was_sent(opened: Opened, profile: str) -> None:
    """The payment is withdrawn for good, by the database; the bank says that it never had it, or gives the reservation back; no money moved."""
    gateway, plan = await opened(profile), transfer()
    await gateway.held(plan)
    assert (await gateway.abort(plan)).rejection is None
    record = await gateway.reaches(plan, Phase.RELEASED)
    assert outcome_of(record).kind is OutcomeKind.RELEASED
    assert record.trouble == ""
    assert await draft(gateway) == "WITHDRAWN"
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await gateway.rows("update bank_draft set state = 'SENT'")
    assert await gateway.on_the_books(RICH) == {}
    assert "pacs.008.001.13" not in await kinds(gateway, plan)
    assert await gateway.bank.reservation(plan) == ("DELETED" if profile == "reservation" else None)
    assert await gateway.bank.booked(plan) == {}
    assert (await gateway.commit(plan)).rejection is not None


@pytest.mark.parametrize("profile", UNSENT)
async def test_abort_of_an_unknown_leg_bars_it(opened: Opened, profile: str) -> None:
    """The bank leaves a tombstone, and the fence bars the Prepare that comes late."""
    gateway, plan = await opened(profile), transfer()
    assert (await gateway.abort(plan)).rejection is None
    await gateway.reaches(plan, Phase.RELEASED)
    late = await gateway.prepare(plan)
    assert late.rejection is not None
    assert late.rejection.reason == "LEG_RELEASED"
    stone = await (gateway.bank.reservation(plan) if profile == "reservation" else gateway.bank.state(plan))
    assert stone == "TOMBSTONED"


async def test_no_money(opened: Opened) -> None:
    """Where money is reserved its want is a NO; where nothing is asked before the Commit it is a refusal that breaks no promise, and releases."""
    for debtor, code in ((POOR, "AM04"), (NOBODY, "AC01")):
        reserving, plan = await opened("reservation"), transfer(debtor=debtor)
        await reserving.prepare(plan)
        refusal = refusal_of(await reserving.reaches(plan, Phase.REFUSED))
        assert (refusal.reason, refusal.outside_code) == ("BANK_PREPARE_FAILED", code)
        await reserving.abort(plan)
        await reserving.reaches(plan, Phase.RELEASED)
    gateway, plan = await opened("plain"), transfer(debtor=POOR)
    await gateway.held(plan)
    await gateway.commit(plan)
    outcome = outcome_of(await gateway.reaches(plan, Phase.REFUSED))
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("BANK_EXECUTE_FAILED", "AM04")
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.booked(plan) == {}


async def test_reservation_lapses(opened: Opened) -> None:
    """The bank ends a reservation before its end: the promise is withdrawn by a signed refusal, and nothing was sent."""
    gateway, plan = await opened("reservation"), transfer()
    await gateway.bank.misbehave("expire_early", delay_ms=8_000)
    await gateway.held(plan)
    outcome = outcome_of(await gateway.reaches(plan, Phase.REFUSED))
    assert outcome.refusal is not None
    assert (outcome.refusal.reason, outcome.refusal.outside_code) == ("BANK_COMMIT_FAILED", "AB03")
    assert await gateway.bank.payment(plan) is None
    assert await gateway.bank.reservation(plan) == "EXPIRED"


async def test_bank_refuses_what_it_had_reserved_for(opened: Opened) -> None:
    """A broken promise, by its name; what was reserved for it is given back at once, and an Abort that follows releases."""
    gateway, plan = await opened("reservation"), transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("refuse", stage="payment", reason="AC06")
    await gateway.commit(plan)
    refusal = outcome_of(await gateway.reaches(plan, Phase.REFUSED)).refusal
    assert refusal is not None
    assert (refusal.reason, refusal.outside_code) == ("BANK_COMMIT_FAILED", "AC06")

    async def given_back() -> bool:
        return await gateway.bank.reservation(plan) == "DELETED"

    await until(given_back, "end of the reservation")
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.booked(plan) == {}


@pytest.mark.parametrize(
    ("profile", "lost"), [("reservation", "camt.025"), ("reservation", "pacs.002"), ("plain", "pacs.002"), ("plain", "camt.054")]
)
async def test_answer_is_lost(opened: Opened, profile: str, lost: str) -> None:
    """Every answer about the leg that comes first is lost, and asked for: settled all the same, once."""
    gateway, plan = await opened(profile), transfer()
    await gateway.bank.misbehave("lose", message=lost, times=2)
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(plan) == POSTED[profile]


@pytest.mark.parametrize(("profile", "stage"), [("reservation", "reservation"), ("reservation", "payment"), ("plain", "payment")])
async def test_bank_forgets_what_it_acknowledged(opened: Opened, profile: str, stage: str) -> None:
    """What the bank had and forgot is shown again in the same bytes, before anything is asked that would bar it: settled."""
    gateway, plan = await opened(profile), transfer()
    await gateway.bank.misbehave("forget", stage=stage)
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}


async def test_deletion_is_lost_pended_and_refused(opened: Opened) -> None:
    """Nothing but the bank's word that the reservation is gone releases; it is asked for until it comes."""
    gateway, plan = await opened("reservation"), transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("forget", stage="deletion")
    await gateway.bank.misbehave("pend")
    await gateway.bank.misbehave("refuse", stage="deletion", reason="NARR")
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.reservation(plan) == "DELETED"
    assert (await gateway.record(plan)).trouble == ""


@pytest.mark.parametrize("profile", UNSENT)
async def test_abort_that_crosses_the_settlement(opened: Opened, profile: str) -> None:
    """Settled, not heard of, and told to abort: the bank says so, and the leg ends executed."""
    gateway, plan = await opened(profile), transfer()
    await gateway.held(plan)
    for message in ("pacs.002", "camt.054"):
        await gateway.bank.misbehave("delay", message=message, delay_ms=10_000)
    await gateway.commit(plan)

    async def booked() -> bool:
        return await gateway.bank.state(plan) == "SETTLED"

    await until(booked, "booking")
    assert (await gateway.abort(plan)).rejection is None
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == POSTED[profile]


@pytest.mark.parametrize("profile", UNSENT)
async def test_payment_that_a_restore_lost_is_built_again(opened: Opened, profile: str) -> None:
    """The database forgot what it kept: the leg's own vote tells when it was asked for, and the payment is made of that and sent once."""
    gateway, plan = await opened(profile), transfer()
    await gateway.held(plan)
    before = (await gateway.rows("select octets from bank_draft"))[0]["octets"]
    await gateway.rows("alter table bank_draft disable trigger user")
    await gateway.rows("delete from bank_draft")
    await gateway.rows("alter table bank_draft enable trigger user")
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.postings(plan) == POSTED[profile]
    if profile == "plain":
        assert (await gateway.rows("select octets from bank_draft"))[0]["octets"] == before


@pytest.mark.parametrize("profile", SAID)
async def test_between_financial_institutions(opened: Opened, profile: str) -> None:
    """Between institutions the payment is a pacs.009, out of one's account at the bank into the other's; cancelled, it is named so."""
    gateway, plan, given_up = await opened(profile), between_institutions(), between_institutions()
    for each in (plan, given_up):
        await gateway.held(each)
    await gateway.commit(plan)
    await gateway.abort(given_up)
    await gateway.reaches(plan, Phase.COMMITTED)
    await gateway.reaches(given_up, Phase.RELEASED)
    assert await gateway.bank.booked(plan) == {NOSTRO_A: -100_00, NOSTRO_B: 100_00}
    assert await gateway.bank.booked(given_up) == {}
    (sent,) = [row["octets"].decode() for row in await gateway.kept(plan, "OUT") if row["kind"] == "pacs.009.001.12"]
    assert f"<Dbtr><FinInstnId><BICFI>{INSTITUTION_A}</BICFI></FinInstnId></Dbtr>" in sent
    cancelled = [row["octets"].decode() for row in await gateway.kept(given_up, "OUT") if row["kind"] == "camt.056.001.11"]
    assert all("<OrgnlMsgNmId>pacs.009.001.12</OrgnlMsgNmId>" in each for each in cancelled)
    assert bool(cancelled) is (profile != "reservation")


async def test_account_that_is_not_the_institution_s(opened: Opened) -> None:
    """A customer's account is no institution's: a NO."""
    gateway = await opened("conditional")
    plan = between_institutions(institution="BNPAFRPPXXX")
    await gateway.prepare(plan)
    assert refusal_of(await gateway.reaches(plan, Phase.REFUSED)).outside_code == "BE01"


async def test_money_comes_back(opened: Opened) -> None:
    """A return in part, then the rest: the leg stays executed, each is a person's matter that says how much, and the book is right."""
    gateway, plan = await opened("plain"), transfer()
    await gateway.held(plan)
    await gateway.commit(plan)
    settled = await gateway.reaches(plan, Phase.COMMITTED)
    await gateway.bank.misbehave("duplicate", message="pacs.004")
    await gateway.bank.give_back(plan, amount="40.00", reason="AC04")
    assert "in part, 40.00 EUR of 100.00 EUR" in await gateway.troubled(plan)
    await gateway.bank.give_back(plan)

    async def both() -> bool:
        return len(await gateway.kept(plan, "IN")) == 6

    await until(both, "second return")
    own = [row for row in await gateway.matters() if row["plan_id"] == plan.plan_id]
    assert [(row["kind"], "whole" in row["sentence"]) for row in own] == [("PAYMENT_RETURNED", False), ("PAYMENT_RETURNED", True)]
    record = await gateway.record(plan)
    assert (record.fence.phase, record.outcome) == (Phase.COMMITTED, settled.outcome)
    assert await gateway.bank.booked(plan) == {}
    assert await gateway.bank.postings(plan) == ["PAYMENT", "RETURN", "RETURN"]
    assert await gateway.on_the_books(RICH) == {}
    assert [row["kind"] for row in await gateway.rows("select kind from ledger_entry order by sequence")] == [
        "INSTRUCTED",
        "SETTLED",
        "RETURNED",
        "RETURNED",
    ]


async def test_profile_that_is_changed_meanwhile(opened: Opened) -> None:
    """What was asked for in one profile is ended in it, whatever the settings say by then."""
    gateway, given_up, settled = await opened("conditional"), transfer(), transfer()
    for plan in (given_up, settled):
        await gateway.held(plan)
    await gateway.close()
    gateway.changes["profile"] = "reservation"
    await gateway.open()
    await gateway.abort(given_up)
    await gateway.commit(settled)
    await gateway.reaches(given_up, Phase.RELEASED)
    await gateway.reaches(settled, Phase.COMMITTED)
    assert await gateway.bank.state(given_up) == "CANCELLED"
    assert await gateway.bank.booked(settled) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(settled) == POSTED["conditional"]
