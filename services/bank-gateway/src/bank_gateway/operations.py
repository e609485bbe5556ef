"""What a bank's words mean for a leg: one literal table for each kind of message. Pure.

1. A payment is settled by a status **and** the matching booking, in whichever order they come; a status alone is no money, and a booking alone is asked
   about, unless a whole statement has it and the key was shown. Money that moved is remembered in every phase: a leg given up and settled is executed.
2. A payment is released by the bank's word that it was cancelled, never was there, or was turned down for good; never once it said that money moved.
3. Whatever contradicts what was known calls a person. Repeats, and words that come late, change nothing.
4. A rejection as a repeat says nothing of the first copy, so it refuses nothing: the bank is asked what it has.
5. A hold that the bank placed for another message than the payment's own is not the payment's, whatever it is called: the amount may be another.
6. What a refusal is called depends on what it breaks (`REASONS`): a vote, intraday credit, a promise that had run out, or one that still stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Final

from bank_gateway.meanings import Answer, Ground, Meaning, Word
from bank_gateway.messages import Booking, Envelope, Payment, PaymentStatus, ReservationStatus, Resolution, Statement
from lockstep_kit.fence import Phase
from lockstep_kit.keys import opens
from lockstep_kit.values import dataclass, replace

#: ExternalPaymentTransactionStatus1Code -> what it says.
WORDS: Final[Mapping[str, Word]] = {
    "ACFW": Word.HELD,
    **dict.fromkeys(("RCVD", "RCVC", "ACTC", "ACCP", "ACSP", "PDNG", "PATC", "ACPD", "ACFC", "PRES"), Word.WORKING),
    "ACSC": Word.SETTLED,
    "ACCC": Word.SETTLED,
    "RJCT": Word.REJECTED,
}
#: ExternalStatusReason1Code of a rejection as a repeat: of a payment, message, group, transaction, end-to-end or instruction reference.
REPEATS: Final = frozenset({"AM05", "DU01", "DU02", "DU03", "DU04", "DU05"})
#: ExternalStatusReason1Code of a payment that the debtor's own money does not cover and a liquidity provider gives no credit for (settlement limit
#: exceeded). A debtor without a credit line is AM04.
CREDIT_DENIED: Final = frozenset({"AM23"})
#: ExternalStatusReason1Code of an order that was cancelled: what a bank says of a payment whose cancellation it granted.
ORDER_CANCELLED: Final = "DS02"

#: ExternalEntryStatus1Code that stands for a status where an account statement alone tells that the payment was settled.
STATED: Final = "BOOK"

STATUSES: Final[Mapping[tuple[Phase, Word], Meaning]] = {
    (Phase.PREPARING, Word.HELD): Meaning.VOTES_YES,
    (Phase.PREPARING, Word.WORKING): Meaning.NOTHING,
    (Phase.PREPARING, Word.SETTLED): Meaning.TROUBLE,
    (Phase.PREPARING, Word.REJECTED): Meaning.VOTES_NO,
    # The bank may hold the first copy.
    (Phase.PREPARING, Word.REPEATED): Meaning.INQUIRE,
    (Phase.PREPARING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.PREPARED, Word.HELD): Meaning.NOTHING,
    (Phase.PREPARED, Word.WORKING): Meaning.NOTHING,
    (Phase.PREPARED, Word.SETTLED): Meaning.TROUBLE,
    (Phase.PREPARED, Word.REJECTED): Meaning.LAPSED,
    (Phase.PREPARED, Word.REPEATED): Meaning.NOTHING,
    (Phase.PREPARED, Word.STRANGE): Meaning.TROUBLE,
    (Phase.REFUSED, Word.HELD): Meaning.TROUBLE,
    (Phase.REFUSED, Word.WORKING): Meaning.NOTHING,
    (Phase.REFUSED, Word.SETTLED): Meaning.SETTLES,
    (Phase.REFUSED, Word.REJECTED): Meaning.NOTHING,
    (Phase.REFUSED, Word.REPEATED): Meaning.NOTHING,
    (Phase.REFUSED, Word.STRANGE): Meaning.TROUBLE,
    # The confirmation of the hold may cross our release.
    (Phase.COMMITTING, Word.HELD): Meaning.NOTHING,
    (Phase.COMMITTING, Word.WORKING): Meaning.NOTHING,
    (Phase.COMMITTING, Word.SETTLED): Meaning.SETTLES,
    (Phase.COMMITTING, Word.REJECTED): Meaning.REFUSED,
    (Phase.COMMITTING, Word.REPEATED): Meaning.INQUIRE,
    (Phase.COMMITTING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.COMMITTED, Word.HELD): Meaning.NOTHING,
    (Phase.COMMITTED, Word.WORKING): Meaning.NOTHING,
    (Phase.COMMITTED, Word.SETTLED): Meaning.NOTHING,
    (Phase.COMMITTED, Word.REJECTED): Meaning.TROUBLE,
    (Phase.COMMITTED, Word.REPEATED): Meaning.NOTHING,
    (Phase.COMMITTED, Word.STRANGE): Meaning.TROUBLE,
    # A late hold is what our request to cancel is about.
    (Phase.ABORTING, Word.HELD): Meaning.NOTHING,
    (Phase.ABORTING, Word.WORKING): Meaning.NOTHING,
    (Phase.ABORTING, Word.SETTLED): Meaning.SETTLES,
    # By itself it releases nothing: it may be about a question that crossed the payment. `_rejected_while_aborting` says when it does.
    (Phase.ABORTING, Word.REJECTED): Meaning.NOTHING,
    (Phase.ABORTING, Word.REPEATED): Meaning.NOTHING,
    (Phase.ABORTING, Word.STRANGE): Meaning.TROUBLE,
    (Phase.RELEASED, Word.HELD): Meaning.TROUBLE,
    (Phase.RELEASED, Word.WORKING): Meaning.NOTHING,
    (Phase.RELEASED, Word.SETTLED): Meaning.SETTLES,
    (Phase.RELEASED, Word.REJECTED): Meaning.NOTHING,
    (Phase.RELEASED, Word.REPEATED): Meaning.NOTHING,
    (Phase.RELEASED, Word.STRANGE): Meaning.TROUBLE,
    # A booked payment stays booked, whatever was asked of its leg since.
    **{
        (phase, word): Meaning.TROUBLE if word in (Word.REJECTED, Word.STRANGE) else Meaning.NOTHING
        for phase in (Phase.REVERSING, Phase.REVERSED)
        for word in Word
    },
}

RESOLUTIONS: Final[Mapping[tuple[Phase, Answer], Meaning]] = {
    **{(phase, answer): Meaning.TROUBLE for phase in Phase for answer in Answer},
    (Phase.ABORTING, Answer.CANCELLED): Meaning.RELEASED,
    (Phase.ABORTING, Answer.PENDING): Meaning.NOTHING,
    (Phase.ABORTING, Answer.NEVER_THERE): Meaning.RELEASED,
    (Phase.ABORTING, Answer.TURNED_DOWN): Meaning.RELEASED,
    (Phase.ABORTING, Answer.SETTLED_ALREADY): Meaning.INQUIRE,
    (Phase.ABORTING, Answer.REFUSED): Meaning.INQUIRE,
    **{
        (Phase.RELEASED, answer): Meaning.NOTHING
        for answer in (Answer.CANCELLED, Answer.PENDING, Answer.NEVER_THERE, Answer.TURNED_DOWN)
    },
    # Our request crossed the settlement, and the answer comes late.
    **{
        (phase, answer): Meaning.NOTHING
        for phase in (Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED)
        for answer in (Answer.PENDING, Answer.SETTLED_ALREADY, Answer.REFUSED)
    },
}

BOOKINGS: Final[Mapping[Phase, Meaning]] = {
    Phase.PREPARING: Meaning.TROUBLE,
    Phase.PREPARED: Meaning.TROUBLE,
    Phase.REFUSED: Meaning.SETTLES,
    Phase.COMMITTING: Meaning.SETTLES,
    Phase.COMMITTED: Meaning.NOTHING,
    Phase.ABORTING: Meaning.SETTLES,
    Phase.RELEASED: Meaning.SETTLES,
    Phase.REVERSING: Meaning.NOTHING,
    Phase.REVERSED: Meaning.NOTHING,
}

#: (what a refusal is, why) -> reason of docs/errors.md.
REASONS: Final[Mapping[tuple[Meaning, Ground], str]] = {
    (Meaning.VOTES_NO, Ground.RAN_OUT): "BANK_PREPARE_FAILED",
    (Meaning.VOTES_NO, Ground.NO_CREDIT): "LIQUIDITY_DENIED",
    (Meaning.VOTES_NO, Ground.OTHER): "BANK_PREPARE_FAILED",
    # Nothing is being executed yet. A hold that ends as agreed breaks no promise.
    (Meaning.LAPSED, Ground.RAN_OUT): "BANK_PREPARE_FAILED",
    (Meaning.LAPSED, Ground.NO_CREDIT): "LIQUIDITY_DENIED",
    (Meaning.LAPSED, Ground.OTHER): "BANK_COMMIT_FAILED",
    # The key was shown too late: refused for good, and yet no promise was broken.
    (Meaning.REFUSED, Ground.RAN_OUT): "BANK_EXECUTE_FAILED",
    # Credit or not: the bank had said that it holds the money, until later than now.
    (Meaning.REFUSED, Ground.NO_CREDIT): "BANK_COMMIT_FAILED",
    (Meaning.REFUSED, Ground.OTHER): "BANK_COMMIT_FAILED",
}

#: What half of a settlement means, before the other half is there. A leg that was given up is a person's business from the first half on.
HALF_SETTLED: Final[Mapping[Phase, Meaning]] = {
    Phase.COMMITTING: Meaning.NOTHING,
    Phase.ABORTING: Meaning.NOTHING,
    Phase.REFUSED: Meaning.TROUBLE,
    Phase.RELEASED: Meaning.TROUBLE,
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the bank has said of a payment."""

    #: Last status or confirmation that counted, or "".
    status: str = ""
    #: Reason beside it, or "".
    reason: str = ""
    #: Message that carried it, or "".
    status_message_id: str = ""
    #: Its SHA-256 in hex, or "".
    status_sha256: str = ""
    #: When the bank made that message (ISO 8601), or "".
    status_at: str = ""
    #: Account servicer's reference of the booking, or "".
    booking_reference: str = ""
    #: SHA-256 in hex of the message that told it, or "".
    booking_sha256: str = ""
    #: Account that was debited, or "".
    booking_account: str = ""
    #: Day of the booking (ISO 8601), or "".
    booked_on: str = ""
    #: Account that the bank says it credited, or "".
    credited_account: str = ""
    #: Last answer to our request to cancel, or "".
    cancellation: str = ""
    #: Last word about the payment's reservation (`profiles.Hold`), or "".
    reservation: str = ""
    #: When the bank made the message that said it (ISO 8601), or "".
    reservation_at: str = ""
    #: Whether the payment can never be settled any more, though its reservation may stand.
    payment_over: bool = False
    #: Returns of the payment: name -> minor units that came back.
    returns: Mapping[str, int] = field(default_factory=dict)
    #: What was booked back to the debtor: name of the ledger's posting -> booking day (ISO 8601), or "" where the bank told none.
    returned_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether the bank says it settled, and booked it."""
        return (WORDS.get(self.status) is Word.SETTLED or self.status == STATED) and self.booking_reference != ""

    @property
    def moved(self) -> bool:
        """Whether the bank says that money moved, be it by a status or by a booking alone."""
        return WORDS.get(self.status) is Word.SETTLED or self.booking_reference != ""

    @property
    def held(self) -> bool:
        """Whether the bank's last word is that it holds the money."""
        return WORDS.get(self.status) is Word.HELD

    @property
    def rejected(self) -> bool:
        """Whether the bank's last word is that it does not take the payment."""
        return self.status == "RJCT" and self.reason not in REPEATS

    def said(self, status: str, reason: str, envelope: Envelope, sha256: bytes) -> Known:
        """With a status or confirmation that counts."""
        return replace(
            self,
            status=status,
            reason=reason,
            status_message_id=envelope.message_id,
            status_sha256=sha256.hex(),
            status_at=envelope.created_at.isoformat(),
        )


@dataclass(frozen=True, slots=True)
class Heard:
    """What a statement changes."""

    #: What is known after it.
    known: Known
    #: What it means.
    meaning: Meaning
    #: One sentence, for TROUBLE, VOTES_NO, LAPSED and REFUSED.
    detail: str = ""
    #: Reason of docs/errors.md, for VOTES_NO, LAPSED and REFUSED.
    reason: str = ""
    #: Whether a booking is not the payment's: it stays a person's business, whatever becomes of the leg.
    misfit: bool = False


@dataclass(frozen=True, slots=True)
class Tables:
    """What a status means, and what a refusal is called."""

    #: (phase, word) -> meaning.
    statuses: Mapping[tuple[Phase, Word], Meaning]
    #: (what a refusal is, why) -> reason of docs/errors.md.
    reasons: Mapping[tuple[Meaning, Ground], str]


CONDITIONAL: Final = Tables(STATUSES, REASONS)


def hear(
    known: Known, phase: Phase, payment: Payment, said: Statement, envelope: Envelope, sha256: bytes, tables: Tables = CONDITIONAL
) -> Heard:
    """What a bank's statement about a payment means, given what was known and where the leg stands."""
    match said:
        case PaymentStatus():
            return _status(known, phase, payment, said, envelope, sha256, tables)
        case Resolution():
            return _resolution(known, phase, said, envelope, sha256)
        case Booking():
            return _booking(known, phase, payment, said, envelope, sha256)


def word_of(said: PaymentStatus) -> Word:
    """What a status says."""
    word = WORDS.get(said.status, Word.STRANGE)
    return Word.REPEATED if word is Word.REJECTED and said.reason in REPEATS else word


def _status(
    known: Known, phase: Phase, payment: Payment, said: PaymentStatus, envelope: Envelope, sha256: bytes, tables: Tables
) -> Heard:
    if said.end_to_end_id and said.end_to_end_id != payment.references.end_to_end_id:
        return Heard(known, Meaning.TROUBLE, f"the bank names another end-to-end reference: {said.end_to_end_id}")
    if said.key and not opens(said.key, payment.lock):
        return Heard(known, Meaning.TROUBLE, f"the bank says {said.status} with a key that does not open the payment's lock")
    word = word_of(said)
    if word is Word.HELD and said.message_id not in ("", payment.references.message_id):
        return Heard(known, Meaning.TROUBLE, f"the bank holds money for another message of this UETR: {said.message_id}")
    meaning = tables.statuses[phase, word]
    detail = f"the bank says {said.status}{f' ({said.reason})' if said.reason else ''}{f': {said.text}' if said.text else ''}"
    if word is Word.REJECTED and known.moved:
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had settled or booked the payment")
    if word is Word.HELD and known.moved and phase is Phase.PREPARING:
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had settled or booked the payment")
    if word is Word.HELD and (known.moved or _overtaken(known, envelope)):
        return Heard(known, Meaning.NOTHING)
    if word is Word.REJECTED and phase is Phase.ABORTING:
        meaning = _rejected_while_aborting(known, said)
    counts = word in (Word.HELD, Word.SETTLED, Word.REJECTED)
    heard = known.said(said.status, said.reason, envelope, sha256) if counts else known
    meaning = _settles(heard, phase, meaning)
    reason = tables.reasons.get((meaning, ground_of(said, phase, payment, envelope)), "")
    return Heard(heard, meaning, f"{detail}, while the leg is {phase}" if meaning is Meaning.TROUBLE else detail, reason)


def ground_of(said: PaymentStatus | ReservationStatus, phase: Phase, payment: Payment, envelope: Envelope) -> Ground:
    """Why a bank refuses. Whether its promise still stood is judged by its own clock, at which it made the message."""
    if phase is not Phase.PREPARING and envelope.created_at >= payment.expires_at:
        return Ground.RAN_OUT
    return Ground.NO_CREDIT if said.reason in CREDIT_DENIED else Ground.OTHER


def _overtaken(known: Known, envelope: Envelope) -> bool:
    """Whether a hold is told by a message that the bank made before its last word, and that came after it."""
    return not known.held and _before_last_word(known, envelope)


def _before_last_word(known: Known, envelope: Envelope) -> bool:
    return known.status_at != "" and envelope.created_at < datetime.fromisoformat(known.status_at)


def _rejected_while_aborting(known: Known, said: PaymentStatus) -> Meaning:
    """A payment that the bank cancelled, or would not cancel because it had turned it down, is released by its rejection."""
    released = said.reason == ORDER_CANCELLED or known.cancellation in (Answer.REFUSED, Answer.TURNED_DOWN)
    return Meaning.RELEASED if released else STATUSES[Phase.ABORTING, Word.REJECTED]


def _resolution(known: Known, phase: Phase, said: Resolution, envelope: Envelope, sha256: bytes) -> Heard:
    answer = answer_of(said)
    code = "CNCL" if answer is Answer.CANCELLED else said.individual or said.confirmation
    detail = f"the bank answers the cancellation with {code} {said.reason}".rstrip()
    # A payment that the bank had turned down is one that it has not.
    turned_down = known.rejected and answer is Answer.REFUSED
    if phase is Phase.RELEASED and answer is Answer.REFUSED and _before_last_word(known, envelope):
        # An earlier request to cancel was refused, and this comes after the one that was granted.
        return Heard(known, Meaning.NOTHING)
    meaning = RESOLUTIONS[phase, Answer.NEVER_THERE if turned_down else answer]
    if meaning is Meaning.RELEASED and answer is Answer.TURNED_DOWN and known.held:
        # The hold's end was not heard of: the bank is asked to say so.
        meaning = Meaning.INQUIRE
    if meaning is Meaning.RELEASED and known.moved:
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had settled or booked the payment")
    if meaning is Meaning.RELEASED and answer is Answer.NEVER_THERE and known.held:
        return Heard(known, Meaning.TROUBLE, f"{detail}, after it had said that it holds the money")
    if meaning is Meaning.RELEASED and not turned_down:
        known = known.said(code, said.reason, envelope, sha256)
    elif phase is Phase.ABORTING:
        known = replace(known, cancellation=answer.value)
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
        case "RJCR", "ARJT":
            return Answer.TURNED_DOWN
        case "RJCR", _:
            return Answer.REFUSED
        case _:
            return Answer.STRANGE


def _booking(known: Known, phase: Phase, payment: Payment, said: Booking, envelope: Envelope, sha256: bytes) -> Heard:
    if said.reversal:
        return _misfit(known, f"the bank reversed a booking of the payment: {said.reference}")
    debited = said.account == payment.debtor.iban and said.debit
    # A creditor at another bank is credited on the account of that bank, or of one in between.
    elsewhere = payment.creditor.agent_bic[:8] != payment.debtor.agent_bic[:8]
    credited = not said.debit and said.account != payment.debtor.iban and (elsewhere or said.account == payment.creditor.iban)
    if not debited and not credited:
        return _misfit(known, "the bank booked on an account that is not the payment's")
    if said.status != "BOOK":
        return Heard(known, Meaning.NOTHING)
    if said.amount != payment.amount or said.end_to_end_id != payment.references.end_to_end_id:
        return _misfit(known, f"the bank booked {said.amount} ({said.end_to_end_id}) instead of {payment.amount}")
    if credited:
        # The other side of the same payment; the debtor's account is the one that counts.
        return Heard(replace(known, credited_account=said.account), Meaning.NOTHING)
    if known.booking_reference and known.booking_reference != said.reference:
        return _misfit(known, f"the bank booked the payment twice: {known.booking_reference} and {said.reference}")
    heard = replace(
        known,
        booking_reference=said.reference,
        booking_sha256=sha256.hex(),
        booking_account=said.account,
        booked_on="" if said.booked_on is None else said.booked_on.isoformat(),
    )
    if said.stated and phase is Phase.COMMITTING and not heard.settled:
        # Its status was lost for good: the account itself, entry and balances, says what became of the payment that the bank was told to make.
        heard = heard.said(STATED, "", envelope, sha256)
    meaning = _settles(heard, phase, BOOKINGS[phase])
    return Heard(heard, meaning, f"the bank booked the payment while the leg is {phase}" if meaning is Meaning.TROUBLE else "")


def _misfit(known: Known, detail: str) -> Heard:
    return Heard(known, Meaning.TROUBLE, detail, misfit=True)


def _settles(known: Known, phase: Phase, meaning: Meaning) -> Meaning:
    """Status and booking settle together, in whichever order they come."""
    return HALF_SETTLED[phase] if meaning is Meaning.SETTLES and not known.settled else meaning
