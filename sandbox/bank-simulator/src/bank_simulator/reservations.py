"""Reservations: camt.103 sets money aside for one payment, camt.049 gives it back, camt.046 asks. Each under the lock of the payment's UETR.

The money lies on the hold account, as for a conditional payment, but no lock guards it: the payment whose UETR the reservation is named after is paid out
of it when it comes, and nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from bank_simulator import reservation_store as rows
from bank_simulator import store
from bank_simulator.amounts import minor_units
from bank_simulator.books import hold_account
from bank_simulator.correspondence import Correspondence
from bank_simulator.domain import (
    RESERVATION,
    RESERVATION_DELETION,
    Account,
    PaymentOrder,
    Receipt,
    ReservationDeletion,
    ReservationOrder,
    ReservationQuery,
    ReservationShown,
)
from bank_simulator.judgement import Turned
from bank_simulator.misbehaviour import Kind, Subject
from bank_simulator.reservation_store import Reservation, ReservationState
from bank_simulator.settings import BankSeed, Counterparty

#: What a deletion is turned down with, by where the reservation stands: reasons of this rail's own.
NOT_DELETED: Final = {
    ReservationState.PAID: ("PAID", "a payment was paid out of it"),
    ReservationState.TOMBSTONED: ("NONE", "never received, and not taken any more"),
    ReservationState.REJECTED: ("OVER", "it was turned down"),
    ReservationState.EXPIRED: ("OVER", "its time was over"),
}
#: How a report words where a reservation stands: a ReservationStatus1Code, or a word of this rail's own; none for one that never was.
SHOWN_AS: Final = {
    ReservationState.RESERVED: "ENAB",
    ReservationState.PAID: "PAID",
    ReservationState.DELETED: "DELD",
    ReservationState.REJECTED: "DISA",
    ReservationState.EXPIRED: "DISA",
    ReservationState.TOMBSTONED: None,
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """The reservation is made, until then."""

    until: datetime


async def reserve(desk: Correspondence, order: ReservationOrder, message_id: str) -> None:
    """Sets money aside, or says why not. One that is known already stays as it is."""
    known = (await rows.find(desk.tx, [order.uetr])).get(order.uetr)
    if known is not None:
        await _say_again(desk, order, known, message_id)
        return
    found = (await store.accounts(desk.tx, [order.account_id], lock=True)).get(order.account_id)
    verdict = judge(order, found, desk.bank, desk.counterparty, desk.now)
    subject = subject_of(order.uetr, order.account_id)
    if isinstance(verdict, Reserved) and (refusal := desk.mischief.take({Kind.REFUSE}, subject, stage="reservation")):
        verdict = Turned(refusal.reason, "refused by the bank")
    if isinstance(verdict, Reserved) and (early := desk.mischief.take({Kind.EXPIRE_EARLY}, subject)):
        verdict = Reserved(desk.now + timedelta(milliseconds=early.delay_ms))
    made = isinstance(verdict, Reserved)
    if made:
        held = hold_account(order.currency)
        await store.post(desk.tx, [store.Item(f"reserve:{order.uetr}", "HOLD", order.uetr, order.account_id, held, order.amount)])
    reason, text = (None, None) if isinstance(verdict, Reserved) else (verdict.reason, verdict.text)
    said = await desk.receipt(Receipt(message_id, RESERVATION, order.uetr, "ACPT" if made else "RJCT", reason, text))
    await rows.add(desk.tx, Reservation(
        order.uetr, desk.counterparty.name, ReservationState.RESERVED if made else ReservationState.REJECTED, reason, message_id,
        order.account_id, order.amount, order.currency, order.scale, verdict.until if isinstance(verdict, Reserved) else None, said,
    ))  # fmt: skip


async def _say_again(desk: Correspondence, order: ReservationOrder, known: Reservation, message_id: str) -> None:
    same = (known.account_id, known.amount, known.currency) == (order.account_id, order.amount, order.currency)
    if known.counterparty != desk.counterparty.name or (known.message_id and not same):
        await desk.receipt(Receipt(message_id, RESERVATION, order.uetr, "RJCT", "DU03", "another reservation has this name"))
    elif known.receipt_message is not None:
        desk.again([known.receipt_message])
    else:
        text = "deleted or asked about before it came"
        await rows.set_receipt(
            desk.tx, order.uetr, await desk.receipt(Receipt(message_id, RESERVATION, order.uetr, "RJCT", "TM01", text))
        )


def judge(
    order: ReservationOrder, account: Account | None, bank: BankSeed, counterparty: Counterparty, now: datetime
) -> Reserved | Turned:
    """Takes a reservation or names the first rule that it breaks. Pure. Reservations borrow nothing."""
    until = order.start + timedelta(seconds=bank.terms.reservation_seconds)
    limit = bank.terms.hold_amount_max.get(order.currency)
    rules = (
        (account is None, "AC01", "this bank keeps no such account"),
        (account is not None and account.status == "CLOSED", "AC04", "the account is closed"),
        (account is not None and account.status == "BLOCKED", "AC06", "the account is blocked"),
        (account is not None and account.kind not in {"CUSTOMER", "VOSTRO"}, "AG01", "nothing is reserved on this kind of account"),
        (
            counterparty.may_debit is not None and order.account_id not in counterparty.may_debit,
            "AG01",
            "the sender has no mandate for the account",
        ),
        (account is not None and account.currency != order.currency, "AM03", "the account is in another currency"),
        (order.start > now + timedelta(days=1), "DT01", "the reservation begins too far ahead"),
        (until <= now, "TM01", "the reservation's time was over before it came"),
        (
            limit is not None and order.amount > minor_units(limit or "0", order.currency, zero=True),
            "AM14",
            "more than this bank holds",
        ),
        (account is not None and account.available < order.amount, "AM04", "not enough money is available on the account"),
    )
    broken = next(((reason, text) for breaks, reason, text in rules if breaks), None)
    return Reserved(until) if broken is None else Turned(*broken)


async def delete(desk: Correspondence, request: ReservationDeletion, message_id: str) -> None:
    """Gives back what is reserved; a reservation that never came is given a tombstone, so that it cannot come later."""
    known = (await rows.find(desk.tx, [request.uetr])).get(request.uetr)
    if known is None:
        await rows.add_tombstone(desk.tx, desk.counterparty.name, request.uetr)
    state = ReservationState.TOMBSTONED if known is None else known.state
    status, reason, text = "RJCT", *NOT_DELETED.get(state, ("", ""))
    if known is not None and known.counterparty != desk.counterparty.name:
        reason, text = "AGNT", "the reservation is not the sender's"
    elif known is not None and state is ReservationState.RESERVED:
        script = desk.mischief.take({Kind.REFUSE, Kind.PEND}, subject_of(known.uetr, known.account_id), stage="deletion")
        if script is None:
            await _give_back(desk, known, ReservationState.DELETED, None)
            status, reason, text = "ACPT", "", ""
        elif script.kind is Kind.PEND:
            status, reason, text = "PDNG", "", ""
        else:
            reason, text = script.reason, "refused by the bank"
    elif state is ReservationState.DELETED:
        status = "ACPT"
    await desk.receipt(Receipt(message_id, RESERVATION_DELETION, request.uetr, status, reason or None, text or None))


async def report(desk: Correspondence, query: ReservationQuery, message_id: str) -> None:
    """Says where a reservation stands; one that never came is given a tombstone."""
    known = (await rows.find(desk.tx, [query.uetr])).get(query.uetr)
    if known is None:
        await rows.add_tombstone(desk.tx, desk.counterparty.name, query.uetr)
    mine = known is not None and known.counterparty == desk.counterparty.name
    shown = ReservationShown(query.uetr, SHOWN_AS[known.state] if known is not None and mine else None)
    if known is not None and mine and known.amount:
        shown = replace(shown, account_id=known.account_id, amount=known.amount, currency=known.currency, scale=known.scale)
    await desk.reservation_report(message_id, shown)


async def expire(desk: Correspondence, known: Reservation) -> None:
    """The reservation's time is over: the money goes back, and whoever asked for it is told."""
    await _give_back(desk, known, ReservationState.EXPIRED, "AB03")
    told = Receipt(known.message_id, RESERVATION, known.uetr, "RJCT", "AB03", "the reservation expired")
    await rows.set_receipt(desk.tx, known.uetr, await desk.receipt(told))


async def _give_back(desk: Correspondence, known: Reservation, state: ReservationState, reason: str | None) -> None:
    held = hold_account(known.currency)
    await store.post(desk.tx, [store.Item(f"release:{known.uetr}", "RELEASE", known.uetr, held, known.account_id, known.amount)])
    await rows.end(desk.tx, known.uetr, state, reason=reason)


def refuses(order: PaymentOrder, reserved: Reservation | None, counterparty: Counterparty, now: datetime) -> Turned | None:
    """Why a payment is not paid out of its reservation; None where it is. Pure."""
    if reserved is None or reserved.counterparty != counterparty.name:
        return Turned("AM04", "no money is reserved for the payment")
    match reserved.state:
        case ReservationState.RESERVED if reserved.hold_until is not None and reserved.hold_until > now:
            terms = (order.debtor_account, order.amount, order.currency)
            same = terms == (reserved.account_id, reserved.amount, reserved.currency)
            return None if same else Turned("AM09", "the reservation is of another amount or account")
        case ReservationState.RESERVED | ReservationState.EXPIRED:
            return Turned("AB03", "the reservation expired")
        case ReservationState.DELETED:
            return Turned("DS02", "the reservation was given back")
        case _:
            return Turned("AM04", "no money is reserved for the payment")


def subject_of(uetr: UUID, account_id: str) -> Subject:
    """A reservation, as those who misbehave see it."""
    return Subject(frozenset([uetr]), frozenset([account_id]))
