"""What is said of several payments in one message, and of one of them once more.

Payments and keys that come together are answered together: one pacs.002 for the statuses, one camt.054 for the bookings, each payment by itself in it. A
payment that the bank was told to do something wrong about has messages of its own, so that its neighbours are none the wiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from bank_simulator import message_store, store
from bank_simulator.correspondence import ON_THE_WAY, Correspondence, Made, booked_entries, booking_reference
from bank_simulator.domain import BOOKING, STATUS, BookedEntry, Original, Payment, PaymentState, Status
from bank_simulator.misbehaviour import Kind, Subject


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be said of a payment."""

    uetr: UUID
    debtor_account: str
    #: What was received and is answered.
    in_reply_to: int | None
    #: None where another message tells it.
    status: Status | None
    #: Its booking, where it was booked.
    entries: Sequence[BookedEntry] = ()
    #: Whether its status is kept without being sent.
    silent: bool = False
    #: The message of which it is the only payment, if one is answered.
    whole_message: str | None = None

    @property
    def subject(self) -> Subject:
        """Whom a misbehaviour would meet."""
        return Subject(frozenset([self.uetr]), frozenset([self.debtor_account]))


@dataclass(frozen=True, slots=True)
class Said:
    """Numbers of the messages that say it."""

    status: int
    booking: int | None


async def tell(desk: Correspondence, told: Sequence[Told], whole: Sequence[Made] = ()) -> dict[UUID, Said]:
    """Keeps what is to be said, statuses before bookings, to be sent at the end of the transaction; returns which messages say it.

    `whole` are statuses that are made already: of messages with several payments, each as a whole.
    """
    statuses = [*whole, *(_status(desk, part) for part in _parts(desk, [each for each in told if each.status], STATUS))]
    bookings = [_booking(desk, part) for part in _parts(desk, [each for each in told if each.entries], BOOKING)]
    numbers = await desk.keep([*statuses, *bookings])
    status_of, booking_of = (
        {uetr: number for made, number in zip(messages, numbered, strict=True) for uetr in made.uetrs}
        for messages, numbered in ((statuses, numbers[: len(statuses)]), (bookings, numbers[len(statuses) :]))
    )
    return {uetr: Said(number, booking_of.get(uetr)) for uetr, number in status_of.items()}


def _parts(desk: Correspondence, told: Sequence[Told], kind: str) -> list[list[Told]]:
    """What goes in one message: as many payments as are agreed, but for those that have one of their own."""
    mischief = ON_THE_WAY if kind == STATUS else ON_THE_WAY | {Kind.MISBOOK}
    parts: list[list[Told]] = []
    open_part: list[Told] = []
    for each in told:
        if (each.silent and kind == STATUS) or desk.mischief.concerns(mischief, each.subject, message=kind):
            parts.append([each])
            continue
        if not open_part or len(open_part) == desk.bank.terms.told_together_max:
            open_part = []
            parts.append(open_part)
        open_part.append(each)
    return parts


def _status(desk: Correspondence, part: Sequence[Told]) -> Made:
    """A pacs.002; one that answers several messages is about none of them as a whole."""
    statuses = [each.status for each in part if each.status is not None]
    if len(part) > 1:
        return desk.made_status(statuses, None)
    return desk.made_status(
        statuses,
        part[0].in_reply_to,
        whole_message=part[0].whole_message,
        kind=statuses[0].original.message_kind,
        silent=part[0].silent,
    )


def _booking(desk: Correspondence, part: Sequence[Told]) -> Made:
    return desk.made_booking([(each.subject, each.entries) for each in part], part[0].in_reply_to if len(part) == 1 else None)


async def say_again(desk: Correspondence, payments: Sequence[Payment], asked: Sequence[Original] = ()) -> None:
    """Sends what was last said about payments, in the same bytes; a settled one's booking after its status.

    Where what was said is no longer how things are, or nothing was said, or it was said of others in the same message, a status is made now, and said again
    from then on.
    """
    names = {original.uetr: original for original in asked}
    shared = await message_store.find_shared(
        desk.tx, [number for each in payments for number in (each.status_message, each.booking_message) if number]
    )
    anew: list[Payment] = []
    for payment in payments:
        if payment.state is PaymentState.CANCELLED and payment.status_code != "RJCT":
            said = Status(payment.original, "RJCT", "DS02", "cancelled by the sender")
            await desk.remember(payment.uetr, await desk.status([said]), "RJCT")
        elif payment.status_message is None:
            original = names.get(payment.uetr, payment.original)
            said = Status(original, "RJCT", "TM01", "never received, and not taken any more")
            await desk.remember(payment.uetr, await desk.status([said]), "RJCT")
        elif shared.isdisjoint((payment.status_message, payment.booking_message)):
            desk.again([payment.status_message, *([payment.booking_message] if payment.booking_message else [])])
        else:
            anew.append(payment)
    if anew:
        await _tell_anew(desk, anew)


async def _tell_anew(desk: Correspondence, payments: Sequence[Payment]) -> None:
    booked = await store.find_booked(desk.tx, [each.uetr for each in payments if each.state is PaymentState.SETTLED])
    told = [_as_it_stands(desk, each, booked.get(each.uetr)) for each in payments]
    codes = {each.uetr: each.status.code for each in told if each.status is not None}
    for uetr, said in (await tell(desk, told)).items():
        await desk.remember(uetr, said.status, codes[uetr], said.booking)


def _as_it_stands(desk: Correspondence, payment: Payment, booked: store.Posted | None) -> Told:
    """How a payment stands that was told of together with others."""
    entries: Sequence[BookedEntry] = ()
    if booked is not None:
        reference = booking_reference(booked, "D")
        status = Status(payment.original, "ACSC", servicer_reference=reference, key=payment.hold_key)
        entries = booked_entries(payment, payment.original, payment.credited_account, booked)
    elif payment.state is PaymentState.HELD:
        status = Status(payment.original, "ACFW")
    else:
        status = Status(payment.original, "RJCT", payment.reason, "as said before")
    return Told(payment.uetr, payment.debtor_account, desk.in_reply_to, status, entries)
