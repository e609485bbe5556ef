"""What whatever a bank says means for a leg, in its profile: words about reservations and returns here, words about the payment by `operations`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bank_gateway.meanings import Meaning, Word
from bank_gateway.messages import AnyStatement, Booking, Envelope, Payment, PaymentReturn, PaymentStatus, ReservationStatus
from bank_gateway.operations import Heard, Known, ground_of, hear, word_of
from bank_gateway.profiles import ENDED, REMEMBERED, RETURNS, Hold, Profile, hold_of
from bank_gateway.references import return_name
from lockstep_kit.amounts import Amount
from lockstep_kit.fence import Phase
from lockstep_kit.values import replace

#: Meanings by which a leg is given up.
_GIVES_UP: Final = (Meaning.VOTES_NO, Meaning.LAPSED, Meaning.RELEASED)


def judge(
    profile: Profile, known: Known, phase: Phase, payment: Payment, said: AnyStatement, envelope: Envelope, sha256: bytes
) -> Heard:
    """What a bank's statement means, given what was known and where the leg stands."""
    match said:
        case ReservationStatus():
            return _reservation(profile, known, phase, payment, said, envelope, sha256)
        case PaymentReturn():
            return _return(known, phase, payment, said)
        case Booking(returned=True):
            return _returned(known, payment, said)
        case Booking(reversal=True):
            heard = hear(known, phase, payment, said, envelope, sha256, profile.tables)
            return replace(heard, known=_booked_back(heard.known, payment, said))
        case _:
            heard = hear(known, phase, payment, said, envelope, sha256, profile.tables)
            return _payment_over(heard) if profile.reserves and heard.meaning is Meaning.RELEASED else heard


def _payment_over(heard: Heard) -> Heard:
    """The payment is never settled: the leg is released once its reservation is over too."""
    known = replace(heard.known, payment_over=True)
    return replace(heard, known=known, meaning=Meaning.RELEASED if known.reservation in ENDED else Meaning.UNRESERVE)


def _reservation(
    profile: Profile, known: Known, phase: Phase, payment: Payment, said: ReservationStatus, envelope: Envelope, sha256: bytes
) -> Heard:
    hold = hold_of(said)
    told = " ".join(part for part in (said.status, f"({said.reason})" if said.reason else "", said.text) if part)
    detail = f"the bank answers {said.about} about the reservation with {told}"
    if said.amount is not None and said.amount != payment.amount:
        return Heard(known, Meaning.TROUBLE, f"the bank reserved {said.amount} instead of {payment.amount}")
    if _overtaken(known, hold, envelope):
        return Heard(known, Meaning.NOTHING)
    meaning = profile.reservations[phase, hold]
    if hold is Hold.NEVER_THERE and known.reservation == Hold.RESERVED and meaning is not Meaning.NOTHING:
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had said that it holds the money")
    if known.moved and (meaning in _GIVES_UP or meaning is Meaning.VOTES_YES):
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had settled or booked the payment")
    heard = known
    if hold in REMEMBERED:
        heard = replace(known, reservation=hold.value, reservation_at=envelope.created_at.isoformat())
    if meaning is Meaning.RELEASED and not known.payment_over:
        meaning = Meaning.NOTHING
    if meaning is Meaning.VOTES_YES or meaning in _GIVES_UP:
        heard = heard.said(said.status, said.reason, envelope, sha256)
    reason = profile.tables.reasons.get((meaning, ground_of(said, phase, payment, envelope)), "")
    return Heard(heard, meaning, f"{detail}, while the leg is {phase}" if meaning is Meaning.TROUBLE else detail, reason)


def _overtaken(known: Known, hold: Hold, envelope: Envelope) -> bool:
    """Whether a word is of a message that the bank made before its last word that counted, and that came after it."""
    before = known.reservation_at != "" and envelope.created_at < datetime.fromisoformat(known.reservation_at)
    return before and hold in (Hold.RESERVED, Hold.WORKING, Hold.REFUSED)


def _return(known: Known, phase: Phase, payment: Payment, said: PaymentReturn) -> Heard:
    if said.return_id in known.returns:
        again = known.returns[said.return_id] == said.amount.minor_units and said.amount.asset == payment.amount.asset
        return Heard(known, Meaning.NOTHING) if again else _misfit(known, f"the bank changed its return {said.return_id}")
    if said.end_to_end_id and said.end_to_end_id != payment.references.end_to_end_id:
        return _misfit(known, f"the bank returns a payment by another end-to-end reference: {said.end_to_end_id}")
    if said.amount.asset != payment.amount.asset or (said.original is not None and said.original != payment.amount):
        return _misfit(known, f"the bank returns {said.amount} of {said.original or 'a payment'}, which is {payment.amount}")
    back = sum(known.returns.values()) + said.amount.minor_units
    if back > payment.amount.minor_units:
        return _misfit(known, f"the bank returns {said.amount}, and so more than the payment of {payment.amount}")
    heard = replace(known, returns={**known.returns, said.return_id: said.amount.minor_units})
    how = "whole" if back == payment.amount.minor_units else f"in part, {_amount(payment, back)} of {payment.amount}"
    why = f" ({said.reason})" if said.reason else ""
    text = f"the payment was returned {how}: {said.amount}{why} by {said.return_id}, while the leg is {phase}"
    return Heard(heard, RETURNS[phase], text, misfit=True)


def _amount(payment: Payment, minor_units: int) -> Amount:
    return replace(payment.amount, minor_units=minor_units)


def _returned(known: Known, payment: Payment, said: Booking) -> Heard:
    """The booking of a return that was told says nothing new, and neither does one that is told again, as in the day's statement."""
    heard = _booked_back(known, payment, said)
    again = return_name(said.reference) in known.returned_on and said.account == payment.debtor.iban
    if said.status != "BOOK" or again or said.amount.minor_units in known.returns.values():
        return Heard(heard, Meaning.NOTHING)
    return _misfit(heard, f"the bank booked a return of {said.amount} ({said.reference})")


def _booked_back(known: Known, payment: Payment, said: Booking) -> Known:
    """With what the bank booked back to the debtor."""
    back = (
        said.status == "BOOK"
        and said.account == payment.debtor.iban
        and not said.debit
        and said.amount.asset == payment.amount.asset
    )
    name = return_name(said.reference)
    if not back or name in known.returned_on:
        return known
    day = "" if said.booked_on is None else said.booked_on.isoformat()
    return replace(known, returned_on={**known.returned_on, name: day})


def _misfit(known: Known, detail: str) -> Heard:
    return Heard(known, Meaning.TROUBLE, detail, misfit=True)


def of_payment(said: ReservationStatus, named: Sequence[str]) -> ReservationStatus:
    """What is said of a reservation, by the payment that our message was about; `named` is empty for a message that is not known here."""
    if not named or said.uetr == named[0]:
        return said
    if not said.uetr:
        return replace(said, uetr=named[0])
    return replace(said, status="", reason="", text="the message that it answers is about another payment")


def stray(said: AnyStatement) -> str:
    """What a person must know of a statement about a payment that nobody here knows; "" for one that says nothing of money."""
    match said:
        case PaymentReturn():
            return (
                f"the bank returns {said.amount} ({said.return_id}) of a payment that is not known here: {said.uetr or 'no UETR'}"
            )
        case ReservationStatus():
            held = hold_of(said) in (Hold.RESERVED, Hold.PAID)
            return f"the bank says {said.status} of a reservation that is not known here: {said.uetr or 'no UETR'}" if held else ""
        case Booking(status="BOOK"):
            side = "debited" if said.debit else "credited"
            return (
                f"the bank {side} {said.amount} ({said.reference}) for a payment that is not known here: {said.uetr or 'no UETR'}"
            )
        case PaymentStatus() if word_of(said) in (Word.HELD, Word.SETTLED):
            return f"the bank says {said.status} of a payment that is not known here: {said.uetr or 'no UETR'}"
        case _:
            return ""
