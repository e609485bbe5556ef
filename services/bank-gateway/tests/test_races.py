"""Races that banks run, and what must hold whatever a bank says in whatever order: the tables with the fence, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from bank_samples import BANK, CREDITOR, DEBTOR, NAMES, OURS
from fence_samples import FINDING_OF
from hypothesis import given
from hypothesis import strategies as st

from bank_gateway.meanings import Meaning, Word
from bank_gateway.messages import Booking, Envelope, Payment, PaymentStatus, Resolution, Side, Statement
from bank_gateway.operations import WORDS, Known, hear
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fence import FINDINGS, Phase
from lockstep_kit.ids import sha256

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = bytes(range(32))
PAYMENT = Payment(
    references=NAMES,
    amount=amount_from_text("EUR", "100.00", 2),
    settlement_date=date(2026, 11, 21),
    debtor=Side("Buyer", DEBTOR, BANK),
    creditor=Side("Seller", CREDITOR, BANK),
    charge_bearer="SLEV",
    remittance="",
    lock=sha256(KEY),
    expires_at=NOW + timedelta(hours=1),
)


def status(code: str, reason: str = "", key: bytes = b"") -> PaymentStatus:
    return PaymentStatus(NAMES.uetr, NAMES.end_to_end_id, code, reason, "", key, NAMES.message_id)


def answer(confirmation: str, reason: str = "") -> Resolution:
    return Resolution(NAMES.uetr, confirmation, "", reason, "")


BOOKED = Booking(NAMES.uetr, NAMES.end_to_end_id, DEBTOR, PAYMENT.amount, debit=True, status="BOOK", reference="B1")
CREDITED = replace(BOOKED, account=CREDITOR, debit=False, reference="B2")
HELD, SETTLED, CANCELLED, EXPIRED = status("ACFW"), status("ACSC"), answer("CNCL"), status("RJCT", "AB03")


@dataclass
class Leg:
    """A leg as the engine runs it: the tables say what words mean, the fence where that leads."""

    phase: Phase = Phase.PREPARING
    known: Known = field(default_factory=Known)
    clock: datetime = NOW
    meanings: list[Meaning] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def told(self, *statements: Statement, made_at: datetime | None = None) -> Leg:
        for statement in statements:
            self.clock += timedelta(seconds=1)
            envelope = Envelope(BANK, OURS, f"M{self.clock:%H%M%S}", made_at or self.clock)
            heard = hear(self.known, self.phase, PAYMENT, statement, envelope, sha256(envelope.message_id.encode()))
            self.known = heard.known
            self.meanings.append(heard.meaning)
            if heard.meaning is Meaning.TROUBLE:
                assert heard.detail
                self.trouble.append(heard.detail)
            if heard.meaning in FINDING_OF:
                self.phase = FINDINGS[self.phase, FINDING_OF[heard.meaning]]
        return self


def leg(phase: Phase, *before: Statement) -> Leg:
    """A leg that heard some words while preparing and then was told to go on."""
    prepared = Leg().told(*before)
    prepared.phase = phase
    return prepared


@pytest.mark.parametrize(
    "words", [(SETTLED, BOOKED), (BOOKED, SETTLED), (SETTLED, CREDITED, HELD, SETTLED, BOOKED), (BOOKED, BOOKED, SETTLED)]
)
def test_commit_settles_by_both_halves(words: tuple[Statement, ...]) -> None:
    """Status and booking, in any order, with the credit side and repeats in between: executed once, without trouble."""
    settled = leg(Phase.COMMITTING, HELD).told(*words)
    assert settled.phase is Phase.COMMITTED
    assert settled.meanings.count(Meaning.SETTLES) == 1
    assert settled.trouble == []
    assert (settled.known.status, settled.known.booking_reference) == ("ACSC", "B1")


def test_late_hold_takes_no_settlement_back() -> None:
    """A repeat of ACFW between ACSC and the booking does not make the settlement forgotten."""
    assert leg(Phase.COMMITTING, HELD).told(SETTLED, HELD, BOOKED).phase is Phase.COMMITTED


def test_hold_for_another_message() -> None:
    """A hold under our UETR that was placed for a message of another name is no YES, since its amount may be another; our own after it is."""
    other = leg(Phase.PREPARING, replace(HELD, message_id="POTHER"))
    assert (other.phase, len(other.trouble)) == (Phase.PREPARING, 1)
    assert not other.known.held
    assert other.told(HELD).phase is Phase.PREPARED


def test_commit_against_expiry() -> None:
    """The hold ended first: refused. Money that moves all the same is told as executed, and calls a person from the first word on."""
    late = leg(Phase.COMMITTING, HELD).told(EXPIRED)
    assert late.phase is Phase.REFUSED
    late.told(SETTLED)
    assert (late.phase, len(late.trouble)) == (Phase.REFUSED, 1)
    assert late.told(BOOKED).phase is Phase.COMMITTED


def test_cancellation_crossing_the_settlement() -> None:
    """CNCL after a word of settlement releases nothing; a settlement after CNCL is told, not swallowed."""
    for half in (SETTLED, BOOKED):
        crossed = leg(Phase.ABORTING, HELD).told(half, CANCELLED)
        assert (crossed.phase, len(crossed.trouble)) == (Phase.ABORTING, 1)
    after = leg(Phase.ABORTING, HELD).told(CANCELLED)
    assert after.phase is Phase.RELEASED
    assert after.told(BOOKED, SETTLED).phase is Phase.COMMITTED
    assert len(after.trouble) == 1


def test_release_is_shown_by_the_word_that_released() -> None:
    """The evidence of a release is the bank's answer to our request, not the hold that went before it."""
    released = leg(Phase.ABORTING, HELD).told(CANCELLED)
    assert (released.known.status, released.known.status_message_id) == ("CNCL", f"M{released.clock:%H%M%S}")


def test_abort_against_a_late_hold() -> None:
    """A hold told before the cancellation and delivered after it is no news; one that the bank makes after it is a person's business."""
    late = leg(Phase.ABORTING).told(CANCELLED)
    assert late.told(HELD, made_at=NOW).trouble == []
    assert len(late.told(HELD).trouble) == 1


def test_abort_against_an_earlier_refusal_to_cancel() -> None:
    """A first request to cancel that was refused, told after the one that was granted, is no news; a refusal that the bank makes after it is a person's."""
    released = leg(Phase.ABORTING, HELD).told(CANCELLED)
    assert released.told(answer("RJCR", "NARR"), made_at=NOW).trouble == []
    assert released.told(answer("RJCR", "ARDT"), made_at=NOW).trouble != []
    assert len(released.told(answer("RJCR", "NARR")).trouble) == 2
    assert released.phase is Phase.RELEASED


def test_lost_answer_to_the_cancellation_is_made_good_by_a_question() -> None:
    """The bank says in answer to a pacs.028 that the payment was cancelled: that releases as its camt.029 would have."""
    assert leg(Phase.ABORTING, HELD).told(status("RJCT", "DS02")).phase is Phase.RELEASED


@pytest.mark.parametrize("words", [(EXPIRED, answer("RJCR", "ARJT")), (answer("RJCR", "ARJT"), EXPIRED)])
def test_payment_that_the_bank_turned_down_is_released_in_either_order(words: tuple[Statement, ...]) -> None:
    """It will not cancel what it has not; rejection and refused cancellation together say so, whichever comes first."""
    assert leg(Phase.ABORTING).told(*words).phase is Phase.RELEASED


def test_rejection_alone_does_not_release() -> None:
    """It may answer a question that overtook the payment, which may still arrive."""
    assert leg(Phase.ABORTING).told(status("RJCT", "TM01")).phase is Phase.ABORTING
    assert leg(Phase.ABORTING).told(status("RJCT", "TM01"), answer("RJCR", "NOOR")).phase is Phase.RELEASED


def test_never_received_after_a_hold_is_a_contradiction() -> None:
    """A bank that held the money and says that it never had the payment is not believed."""
    told = leg(Phase.ABORTING, HELD).told(answer("RJCR", "NOOR"))
    assert (told.phase, len(told.trouble)) == (Phase.ABORTING, 1)


@pytest.mark.parametrize("code", ["AM05", "DU03", "DU05"])
def test_rejection_as_a_repeat_says_nothing_about_the_first(code: str) -> None:
    """A bank that refuses our repeat still has the first: no NO, no lapse, no refusal of a commit, no release; it is asked what it has."""
    repeat = status("RJCT", code)
    assert leg(Phase.PREPARED, HELD).told(repeat).phase is Phase.PREPARED
    committing = leg(Phase.COMMITTING, HELD).told(repeat)
    assert (committing.phase, committing.meanings[-1]) == (Phase.COMMITTING, Meaning.INQUIRE)
    assert committing.told(SETTLED, BOOKED).phase is Phase.COMMITTED
    preparing = leg(Phase.PREPARING).told(repeat)
    assert (preparing.phase, preparing.meanings[-1]) == (Phase.PREPARING, Meaning.INQUIRE)
    assert preparing.told(HELD).phase is Phase.PREPARED
    assert leg(Phase.ABORTING, repeat).told(answer("RJCR", "LEGL")).phase is Phase.ABORTING


def test_echoed_key_must_open_the_lock() -> None:
    """A settlement with another payment's key settles nothing; with the right key, or none, it does."""
    wrong = leg(Phase.COMMITTING, HELD).told(status("ACSC", key=bytes(32)), BOOKED)
    assert (wrong.phase, len(wrong.trouble)) == (Phase.COMMITTING, 1)
    assert wrong.told(status("ACSC", key=KEY)).phase is Phase.COMMITTED


def test_two_payments_with_one_end_to_end_reference() -> None:
    """A booking or status that names our UETR with another reference is not ours."""
    other = replace(BOOKED, end_to_end_id="OTHER")
    assert leg(Phase.COMMITTING, HELD).told(SETTLED, other).phase is Phase.COMMITTING
    assert leg(Phase.PREPARING).told(replace(HELD, end_to_end_id="OTHER")).phase is Phase.PREPARING


def test_reversal_and_wrong_credit_call_a_person() -> None:
    """An entry that takes another back settles nothing; neither does a credit of another amount pass unseen."""
    told = leg(Phase.COMMITTING, HELD).told(SETTLED, replace(BOOKED, reversal=True))
    assert (told.phase, len(told.trouble)) == (Phase.COMMITTING, 1)
    less = replace(CREDITED, amount=amount_from_text("EUR", "99.00", 2))
    assert len(leg(Phase.COMMITTING, HELD).told(less).trouble) == 1


ANYTHING: list[Statement] = [
    *(status(code) for code in (*WORDS, "ACWC", "BLCK", "CANC", "ZZZZ", "")),
    *(status("RJCT", reason) for reason in ("AB03", "AM04", "AM05", "DU03", "TM01", "DS02", "NARR")),
    status("ACSC", key=KEY),
    status("ACSC", key=bytes(32)),
    *(
        answer(confirmation, reason)
        for confirmation in ("CNCL", "PDCR", "RJCR", "UWFW", "")
        for reason in ("", "NOOR", "ARDT", "LEGL")
    ),
    *(replace(answer("CNCL"), individual=individual) for individual in ("ACCR", "RJCR", "PDCR")),
    BOOKED,
    CREDITED,
    replace(BOOKED, reference="B9"),
    replace(BOOKED, amount=amount_from_text("EUR", "100.01", 2)),
    replace(BOOKED, reversal=True),
    replace(BOOKED, status="PDNG"),
    replace(BOOKED, debit=False),
]
#: What the coordinator may order, as the fence lets it begin.
ORDERS = {
    Phase.PREPARING: (Phase.ABORTING,),
    Phase.PREPARED: (Phase.COMMITTING, Phase.ABORTING),
    Phase.REFUSED: (Phase.ABORTING,),
    Phase.COMMITTING: (Phase.ABORTING,),  # a delegated leg
}


@given(st.lists(st.tuples(st.sampled_from(ANYTHING), st.integers(0, 5)), max_size=14))
def test_whatever_a_bank_says_in_whatever_order(course: list[tuple[Statement, int]]) -> None:
    """Executed needs both halves; released and refused never follow a word that money moved; each finding has its place in the fence; repeats are no news."""
    one = Leg()
    heard: list[Statement] = []
    for statement, order in course:
        if order < len(ORDERS.get(one.phase, ())):
            one.phase = ORDERS[one.phase][order]
        before = one.phase
        moved = one.known.moved
        one.told(statement)
        heard.append(statement)
        meaning = one.meanings[-1]
        if meaning is Meaning.SETTLES:
            assert any(isinstance(each, PaymentStatus) and WORDS.get(each.status) is Word.SETTLED for each in heard)
            assert any(each in (BOOKED, replace(BOOKED, reference="B9")) for each in heard)
        if meaning in (Meaning.RELEASED, Meaning.REFUSED, Meaning.LAPSED):
            assert not moved
        assert one.phase is before or meaning in FINDING_OF
        assert before is not Phase.COMMITTED or one.phase is Phase.COMMITTED
        if before in (Phase.REFUSED, Phase.RELEASED) and one.known.moved and not moved:
            assert meaning in (Meaning.TROUBLE, Meaning.SETTLES)
        # A repeat of the same message, straight after it.
        phase, known = one.phase, one.known
        again = hear(
            known,
            phase,
            PAYMENT,
            statement,
            Envelope(BANK, OURS, f"M{one.clock:%H%M%S}", one.clock),
            sha256(f"M{one.clock:%H%M%S}".encode()),
        )
        assert again.known == known or meaning in FINDING_OF
        assert again.meaning in (meaning, Meaning.NOTHING) or meaning in FINDING_OF
