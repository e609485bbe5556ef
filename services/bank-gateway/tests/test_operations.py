"""What a bank's words mean: every word in every phase, and the races that banks run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from fence_samples import FINDING_OF

from bank_gateway.judging import stray
from bank_gateway.meanings import Answer, Ground, Meaning, Word
from bank_gateway.messages import Booking, Envelope, Payment, PaymentStatus, Resolution, Side, Statement
from bank_gateway.operations import BOOKINGS, REASONS, RESOLUTIONS, STATUSES, Heard, Known, hear
from bank_gateway.references import references
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fence import FINDINGS, Phase
from lockstep_kit.ids import LegId, PlanId

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PAYMENT = Payment(
    references=references(PlanId("1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11"), LegId("cash")),
    amount=amount_from_text("EUR", "100.00", 2),
    settlement_date=date(2026, 11, 21),
    debtor=Side("Buyer", "DE89370400440532013000", "SNDBDEFFXXX"),
    creditor=Side("Seller", "DE75512108001245126199", "SNDBDEFFXXX"),
    charge_bearer="SLEV",
    remittance="",
    lock=bytes(32),
    expires_at=NOW,
)
ENVELOPE = Envelope("SNDBDEFFXXX", "LCKSDEFFXXX", "ANSWER1", NOW)
NAMES = PAYMENT.references


def status(code: str, reason: str = "") -> PaymentStatus:
    return PaymentStatus(NAMES.uetr, NAMES.end_to_end_id, code, reason, "", b"")


def resolution(confirmation: str, reason: str = "") -> Resolution:
    return Resolution(NAMES.uetr, confirmation, "", reason, "")


BOOKED = Booking(NAMES.uetr, NAMES.end_to_end_id, PAYMENT.debtor.iban, PAYMENT.amount, debit=True, status="BOOK", reference="B1")


def told(phase: Phase, *statements: Statement, known: Known | None = None) -> Heard:
    """What the last of some statements means, all heard in one phase."""
    heard = Heard(known or Known(), Meaning.NOTHING)
    for statement in statements:
        heard = hear(heard.known, phase, PAYMENT, statement, ENVELOPE, bytes(32))
    return heard


def refused(phase: Phase, code: str, *, after_the_end: bool = False) -> tuple[Meaning, str]:
    """What a rejection of a payment means that the bank had said to hold until an hour from now, and what it is called."""
    held = replace(PAYMENT, expires_at=NOW + timedelta(hours=1))
    made = replace(ENVELOPE, created_at=held.expires_at if after_the_end else NOW)
    heard = hear(Known(status="ACFW"), phase, held, status("RJCT", code), made, bytes(32))
    return heard.meaning, heard.reason


def test_every_refusal_has_a_name() -> None:
    """The table is total: whatever refuses, for whatever ground, has a reason; and only these do."""
    assert set(REASONS) == set(itertools.product((Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED), Ground))


@pytest.mark.parametrize("code", ["AB03", "AM04", "AC06", "AM23", "NARR", ""])
def test_broken_promise_is_told_from_one_that_had_run_out(code: str) -> None:
    """Once the key was shown: before the agreed end, by the bank's own clock, it is a broken promise, whatever the code; from the end on it is not."""
    assert refused(Phase.COMMITTING, code) == (Meaning.REFUSED, "BANK_COMMIT_FAILED")
    assert refused(Phase.COMMITTING, code, after_the_end=True) == (Meaning.REFUSED, "BANK_EXECUTE_FAILED")


def test_denied_credit_is_told_by_its_code() -> None:
    """Before a vote and before the key was shown, AM23 alone is a denial of credit; its text says nothing."""
    for phase, meaning, otherwise in (
        (Phase.PREPARING, Meaning.VOTES_NO, "BANK_PREPARE_FAILED"),
        (Phase.PREPARED, Meaning.LAPSED, "BANK_COMMIT_FAILED"),
    ):
        assert refused(phase, "AM23") == (meaning, "LIQUIDITY_DENIED")
        for code in ("AM04", "AM02", "AM14", "AM21"):
            assert refused(phase, code) == (meaning, otherwise)
    assert refused(Phase.PREPARED, "AB03", after_the_end=True) == (Meaning.LAPSED, "BANK_PREPARE_FAILED")
    liquid = replace(status("RJCT", "AM04"), text="intraday credit denied by the liquidity provider")
    heard = hear(Known(), Phase.PREPARING, PAYMENT, liquid, ENVELOPE, bytes(32))
    assert heard.reason == "BANK_PREPARE_FAILED"


def test_what_is_said_of_money_that_nobody_knows() -> None:
    """Bookings, holds and settlements are a person's business; rejections, answers to cancellations and entries that are not booked are not."""
    assert "100.00 EUR" in stray(BOOKED)
    assert all(code in stray(status(code)) for code in ("ACFW", "ACSC", "ACCC"))
    others: list[Statement] = [
        status("RJCT", "AM04"),
        status("PDNG"),
        status("XXXX"),
        resolution("CNCL"),
        replace(BOOKED, status="PDNG"),
    ]
    assert [stray(each) for each in others] == [""] * len(others)


def test_every_word_has_a_meaning_in_every_phase() -> None:
    """The tables are total: no status, answer or booking that can come back in any phase is without a meaning."""
    assert set(STATUSES) == set(itertools.product(Phase, Word))
    assert set(RESOLUTIONS) == set(itertools.product(Phase, Answer))
    assert set(BOOKINGS) == set(Phase)


def test_meanings_lead_to_findings_that_the_fence_knows() -> None:
    """A meaning that becomes a finding stands in a phase in which the fence takes that finding."""
    rows = [(phase, meaning) for (phase, _), meaning in [*STATUSES.items(), *RESOLUTIONS.items()]] + list(BOOKINGS.items())
    for phase, meaning in rows:
        if meaning in FINDING_OF:
            assert (phase, FINDING_OF[meaning]) in FINDINGS


@pytest.mark.parametrize("statements", [(status("ACSC"), BOOKED), (BOOKED, status("ACSC")), (BOOKED, status("ACCC"))])
def test_status_and_booking_settle_together_in_either_order(statements: tuple[Statement, ...]) -> None:
    """One of the two alone settles nothing."""
    assert told(Phase.COMMITTING, statements[0]).meaning is Meaning.NOTHING
    heard = told(Phase.COMMITTING, *statements)
    assert heard.meaning is Meaning.SETTLES
    assert heard.known.settled


def test_held_is_the_vote_and_rejected_is_the_no() -> None:
    """ACFW votes YES; RJCT votes NO with the bank's reason; what is in between waits."""
    assert told(Phase.PREPARING, status("ACFW")).meaning is Meaning.VOTES_YES
    refused = told(Phase.PREPARING, status("RJCT", "AM04"))
    assert (refused.meaning, refused.known.reason) == (Meaning.VOTES_NO, "AM04")
    for code in ("ACTC", "ACSP", "PDNG", "RCVD"):
        assert told(Phase.PREPARING, status(code)).meaning is Meaning.NOTHING


def test_expiry_after_the_vote_is_a_lapse_and_after_the_release_a_refusal() -> None:
    """The same words mean another thing once the key was shown."""
    assert told(Phase.PREPARED, status("RJCT", "AB03")).meaning is Meaning.LAPSED
    assert told(Phase.COMMITTING, status("RJCT", "AB03")).meaning is Meaning.REFUSED


def test_contradictions_call_a_person_and_change_nothing() -> None:
    """A rejection after the settlement, a second booking, another amount, a settlement nobody released."""
    settled = told(Phase.COMMITTING, status("ACSC"), BOOKED).known
    for phase, statement in (
        (Phase.COMMITTING, status("RJCT", "AM04")),
        (Phase.COMMITTED, status("RJCT", "AM04")),
        (Phase.COMMITTED, replace(BOOKED, reference="B2")),
    ):
        heard = told(phase, statement, known=settled)
        assert (heard.meaning, heard.known) == (Meaning.TROUBLE, settled)
    other = replace(BOOKED, amount=amount_from_text("EUR", "100.01", 2))
    assert told(Phase.COMMITTING, other).meaning is Meaning.TROUBLE
    assert told(Phase.COMMITTING, replace(BOOKED, end_to_end_id="OTHER")).meaning is Meaning.TROUBLE
    assert told(Phase.PREPARED, status("ACSC")).meaning is Meaning.TROUBLE
    assert told(Phase.RELEASED, BOOKED).meaning is Meaning.TROUBLE
    assert told(Phase.PREPARING, status("XXXX")).meaning is Meaning.TROUBLE


def test_cancellation_is_released_only_by_the_bank_s_word() -> None:
    """CNCL and a payment that never was there release; pending waits; a refusal is asked about; a late hold changes nothing."""
    assert told(Phase.ABORTING, resolution("CNCL")).meaning is Meaning.RELEASED
    assert told(Phase.ABORTING, resolution("RJCR", "NOOR")).meaning is Meaning.RELEASED
    assert told(Phase.ABORTING, resolution("PDCR")).meaning is Meaning.NOTHING
    assert told(Phase.ABORTING, resolution("RJCR", "ARDT")).meaning is Meaning.INQUIRE
    assert told(Phase.ABORTING, resolution("RJCR", "LEGL")).meaning is Meaning.INQUIRE
    assert told(Phase.ABORTING, resolution("RJCR", "ARJT")).meaning is Meaning.RELEASED
    assert told(Phase.ABORTING, resolution("RJCR", "ARJT"), known=Known(status="ACFW")).meaning is Meaning.INQUIRE
    assert told(Phase.ABORTING, status("ACFW")).meaning is Meaning.NOTHING
    assert told(Phase.ABORTING, status("RJCT", "NOOR")).meaning is Meaning.NOTHING


def test_cancellation_of_a_rejected_payment_is_a_release() -> None:
    """A bank that turned the payment down holds nothing for it, however it words its answer."""
    rejected = told(Phase.PREPARING, status("RJCT", "AM04")).known
    assert told(Phase.ABORTING, resolution("RJCR", "AGNT"), known=rejected).meaning is Meaning.RELEASED


def test_cancellation_that_crosses_the_settlement_ends_executed() -> None:
    """The bank settled before it saw our request: its refusal is asked about, and status and booking decide."""
    heard = told(Phase.ABORTING, resolution("RJCR", "ARDT"), status("ACSC"), BOOKED)
    assert heard.meaning is Meaning.SETTLES


def test_duplicates_change_nothing() -> None:
    """The same words again are no news in the phase that they led to."""
    held = told(Phase.PREPARING, status("ACFW")).known
    assert told(Phase.PREPARED, status("ACFW"), known=held).meaning is Meaning.NOTHING
    settled = told(Phase.COMMITTING, status("ACSC"), BOOKED).known
    assert told(Phase.COMMITTED, status("ACSC"), BOOKED, known=settled).meaning is Meaning.NOTHING
    assert told(Phase.RELEASED, resolution("CNCL")).meaning is Meaning.NOTHING
    creditor = replace(BOOKED, account=PAYMENT.creditor.iban, debit=False)
    assert told(Phase.COMMITTING, creditor).meaning is Meaning.NOTHING
