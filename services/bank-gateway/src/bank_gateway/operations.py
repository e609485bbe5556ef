"""What a bank's words mean for a leg: one literal table for each kind of message. Pure.

A payment is settled by a status **and** the matching booking; a status alone is no money, and a booking alone is asked about. A payment is released by the
bank's word that it was cancelled, or that it never was there. Whatever contradicts what was known calls a person and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from bank_gateway.messages import Booking, Envelope, Payment, PaymentStatus, Resolution, Statement
from lockstep_kit.fence import Phase


class Word(StrEnum):
    """What a status says, in our words."""

    HELD = "HELD"
    WORKING = "WORKING"
    SETTLED = "SETTLED"
    REJECTED = "REJECTED"
    STRANGE = "STRANGE"


class Answer(StrEnum):
    """What a request to cancel was answered with, in our words."""

    CANCELLED = "CANCELLED"
    PENDING = "PENDING"
    NEVER_THERE = "NEVER_THERE"
    SETTLED_ALREADY = "SETTLED_ALREADY"
    REFUSED = "REFUSED"
    STRANGE = "STRANGE"


class Meaning(StrEnum):
    """What it means for the leg."""

    #: Nothing new.
    NOTHING = "NOTHING"
    #: Money is on hold.
    VOTES_YES = "VOTES_YES"
    #: The bank does not take the payment.
    VOTES_NO = "VOTES_NO"
    #: The hold ended before it was released.
    LAPSED = "LAPSED"
    #: Settled, if the booking is there too.
    SETTLES = "SETTLES"
    #: It will never be settled.
    REFUSED = "REFUSED"
    #: The bank will never settle it, by our own request.
    RELEASED = "RELEASED"
    #: Ask the bank what became of it.
    INQUIRE = "INQUIRE"
    #: A person must look.
    TROUBLE = "TROUBLE"


#: ExternalPaymentTransactionStatus1Code -> what it says.
WORDS: Final[Mapping[str, Word]] = {
    "ACFW": Word.HELD,
    **dict.fromkeys(("RCVD", "RCVC", "ACTC", "ACCP", "ACSP", "ACWC", "PDNG", "PATC", "ACPD", "ACFC", "PRES"), Word.WORKING),
    "ACSC": Word.SETTLED,
    "ACCC": Word.SETTLED,
    "RJCT": Word.REJECTED,
}

STATUSES: Final[Mapping[tuple[Phase, Word], Meaning]] = {
    (Phase.PREPARING, Word.HELD): Meaning.VOTES_YES,
    (Phase.PREPARING, Word.WORKING): Meaning.NOTHING,
    (Phase.PREPARING, Word.SETTLED): Meaning.TROUBLE,
    (Phase.PREPARING, Word.REJECTED): Meaning.VOTES_NO,
    (Phase.PREPARING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.PREPARED, Word.HELD): Meaning.NOTHING,
    (Phase.PREPARED, Word.WORKING): Meaning.NOTHING,
    (Phase.PREPARED, Word.SETTLED): Meaning.TROUBLE,
    (Phase.PREPARED, Word.REJECTED): Meaning.LAPSED,
    (Phase.PREPARED, Word.STRANGE): Meaning.TROUBLE,
    (Phase.REFUSED, Word.HELD): Meaning.TROUBLE,
    (Phase.REFUSED, Word.WORKING): Meaning.NOTHING,
    (Phase.REFUSED, Word.SETTLED): Meaning.TROUBLE,
    (Phase.REFUSED, Word.REJECTED): Meaning.NOTHING,
    (Phase.REFUSED, Word.STRANGE): Meaning.TROUBLE,
    # The confirmation of the hold may cross our release.
    (Phase.COMMITTING, Word.HELD): Meaning.NOTHING,
    (Phase.COMMITTING, Word.WORKING): Meaning.NOTHING,
    (Phase.COMMITTING, Word.SETTLED): Meaning.SETTLES,
    (Phase.COMMITTING, Word.REJECTED): Meaning.REFUSED,
    (Phase.COMMITTING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.COMMITTED, Word.HELD): Meaning.NOTHING,
    (Phase.COMMITTED, Word.WORKING): Meaning.NOTHING,
    (Phase.COMMITTED, Word.SETTLED): Meaning.NOTHING,
    (Phase.COMMITTED, Word.REJECTED): Meaning.TROUBLE,
    (Phase.COMMITTED, Word.STRANGE): Meaning.TROUBLE,
    # A late hold is what our request to cancel is about.
    (Phase.ABORTING, Word.HELD): Meaning.NOTHING,
    (Phase.ABORTING, Word.WORKING): Meaning.NOTHING,
    (Phase.ABORTING, Word.SETTLED): Meaning.SETTLES,
    # Only the answer to our request releases: a rejection may be about a question that crossed the payment.
    (Phase.ABORTING, Word.REJECTED): Meaning.NOTHING,
    (Phase.ABORTING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.RELEASED, Word.HELD): Meaning.TROUBLE,
    (Phase.RELEASED, Word.WORKING): Meaning.NOTHING,
    (Phase.RELEASED, Word.SETTLED): Meaning.TROUBLE,
    (Phase.RELEASED, Word.REJECTED): Meaning.NOTHING,
    (Phase.RELEASED, Word.STRANGE): Meaning.TROUBLE,
}

RESOLUTIONS: Final[Mapping[tuple[Phase, Answer], Meaning]] = {
    **{(phase, answer): Meaning.TROUBLE for phase in Phase for answer in Answer},
    (Phase.ABORTING, Answer.CANCELLED): Meaning.RELEASED,
    (Phase.ABORTING, Answer.PENDING): Meaning.NOTHING,
    (Phase.ABORTING, Answer.NEVER_THERE): Meaning.RELEASED,
    (Phase.ABORTING, Answer.SETTLED_ALREADY): Meaning.INQUIRE,
    (Phase.ABORTING, Answer.REFUSED): Meaning.INQUIRE,
    **{(Phase.RELEASED, answer): Meaning.NOTHING for answer in (Answer.CANCELLED, Answer.PENDING, Answer.NEVER_THERE)},
    # Our request crossed the settlement, and the answer comes late.
    **{(Phase.COMMITTED, answer): Meaning.NOTHING for answer in (Answer.PENDING, Answer.SETTLED_ALREADY, Answer.REFUSED)},
}

BOOKINGS: Final[Mapping[Phase, Meaning]] = {
    Phase.PREPARING: Meaning.TROUBLE,
    Phase.PREPARED: Meaning.TROUBLE,
    Phase.REFUSED: Meaning.TROUBLE,
    Phase.COMMITTING: Meaning.SETTLES,
    Phase.COMMITTED: Meaning.NOTHING,
    Phase.ABORTING: Meaning.SETTLES,
    Phase.RELEASED: Meaning.TROUBLE,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the bank has said of a payment."""

    #: Last status that counted, or "".
    status: str = ""
    #: Reason beside it, or "".
    reason: str = ""
    #: Message that carried it, or "".
    status_message_id: str = ""
    #: Its SHA-256 in hex, or "".
    status_sha256: str = ""
    #: Account servicer's reference of the booking, or "".
    booking_reference: str = ""
    #: SHA-256 in hex of the message that told it, or "".
    booking_sha256: str = ""

    @property
    def settled(self) -> bool:
        """Whether the bank says it settled, and booked it."""
        return WORDS.get(self.status) is Word.SETTLED and self.booking_reference != ""

    @property
    def rejected(self) -> bool:
        """Whether the bank's last word is that it does not take the payment."""
        return self.status == "RJCT"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a statement changes."""

    #: What is known after it.
    known: Known
    #: What it means.
    meaning: Meaning
    #: One sentence, for TROUBLE, VOTES_NO, LAPSED and REFUSED.
    detail: str = ""


def hear(known: Known, phase: Phase, payment: Payment, said: Statement, envelope: Envelope, sha256: bytes) -> Heard:
    """What a bank's statement about a payment means, given what was known and where the leg stands."""
    match said:
        case PaymentStatus():
            return _status(known, phase, payment, said, envelope, sha256)
        case Resolution():
            return _resolution(known, phase, said)
        case Booking():
            return _booking(known, phase, payment, said, sha256)


def _status(known: Known, phase: Phase, payment: Payment, said: PaymentStatus, envelope: Envelope, sha256: bytes) -> Heard:
    if said.end_to_end_id and said.end_to_end_id != payment.references.end_to_end_id:
        return Heard(known, Meaning.TROUBLE, f"the bank names another end-to-end reference: {said.end_to_end_id}")
    word = WORDS.get(said.status, Word.STRANGE)
    meaning = STATUSES[phase, word]
    detail = f"the bank says {said.status}{f' ({said.reason})' if said.reason else ''}{f': {said.text}' if said.text else ''}"
    if word is Word.REJECTED and (WORDS.get(known.status) is Word.SETTLED or known.booking_reference):
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had settled or booked the payment")
    if meaning is Meaning.TROUBLE or word in (Word.WORKING, Word.STRANGE):
        return Heard(known, meaning, f"{detail}, while the leg is {phase}" if meaning is Meaning.TROUBLE else "")
    heard = replace(
        known, status=said.status, reason=said.reason, status_message_id=envelope.message_id, status_sha256=sha256.hex()
    )
    return Heard(heard, _settles(heard, meaning), detail)


def _resolution(known: Known, phase: Phase, said: Resolution) -> Heard:
    answer = answer_of(said)
    # A payment that the bank had turned down is one that it has not.
    if known.rejected and answer is Answer.REFUSED:
        answer = Answer.NEVER_THERE
    meaning = RESOLUTIONS[phase, answer]
    detail = f"the bank answers the cancellation with {said.confirmation or said.individual} {said.reason}".rstrip()
    return Heard(known, meaning, f"{detail}, while the leg is {phase}" if meaning is Meaning.TROUBLE else detail)


def answer_of(said: Resolution) -> Answer:
    """What a camt.029 says about one payment; its own status goes before the whole message's."""
    code = {"ACCR": "CNCL"}.get(said.individual, said.individual or said.confirmation)
    match code, said.reason:
        case "CNCL", _:
            return Answer.CANCELLED
        case "PDCR" | "PECR", _:
            return Answer.PENDING
        case "RJCR", "NOOR":
            return Answer.NEVER_THERE
        case "RJCR", "ARDT":
            return Answer.SETTLED_ALREADY
        case "RJCR", _:
            return Answer.REFUSED
        case _:
            return Answer.STRANGE


def _booking(known: Known, phase: Phase, payment: Payment, said: Booking, sha256: bytes) -> Heard:
    if said.account != payment.debtor.iban or not said.debit:
        # The other side of the same payment; the debtor's account is the one that counts.
        credited = said.account == payment.creditor.iban and not said.debit
        return Heard(
            known, Meaning.NOTHING if credited else Meaning.TROUBLE, "the bank booked on an account that is not the payment's"
        )
    if said.status != "BOOK":
        return Heard(known, Meaning.NOTHING)
    if said.amount != payment.amount or said.end_to_end_id != payment.references.end_to_end_id:
        return Heard(known, Meaning.TROUBLE, f"the bank booked {said.amount} ({said.end_to_end_id}) instead of {payment.amount}")
    if known.booking_reference and known.booking_reference != said.reference:
        return Heard(known, Meaning.TROUBLE, f"the bank booked the payment twice: {known.booking_reference} and {said.reference}")
    meaning = BOOKINGS[phase]
    if meaning is Meaning.TROUBLE:
        return Heard(known, meaning, f"the bank booked the payment while the leg is {phase}")
    heard = replace(known, booking_reference=said.reference, booking_sha256=sha256.hex())
    return Heard(heard, _settles(heard, meaning))


def _settles(known: Known, meaning: Meaning) -> Meaning:
    """Status and booking settle together, in whichever order they come."""
    return Meaning.NOTHING if meaning is Meaning.SETTLES and not known.settled else meaning
