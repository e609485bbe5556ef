"""What ends a hold: a release with the right key, a cancellation, its expiry. Each under the lock of the payment's UETR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bank_simulator import credit, store, telling
from bank_simulator.books import hold_account
from bank_simulator.checks import certain
from bank_simulator.correspondence import Correspondence, booked_entries, booking_reference
from bank_simulator.domain import Cancellation, CancellationItem, Payment, PaymentState, Resolved, Status
from bank_simulator.judgement import CREDIT_DENIED
from bank_simulator.misbehaviour import Kind, Subject
from bank_simulator.telling import Told


@dataclass(frozen=True, slots=True)
class Shown:
    """A key that opens the lock of a payment's hold."""

    payment: Payment
    key: bytes
    #: Number of the request that showed it.
    received: int


def moved(desk: Correspondence, shown: Sequence[Shown]) -> set[str]:
    """The accounts that the releases of holds may move."""
    return credit.moved(desk, [each.payment for each in shown])


async def release(desk: Correspondence, shown: Sequence[Shown]) -> None:
    """Settles held payments whose locks the keys open; what no longer is held gets its last answer again."""
    settling: list[tuple[Shown, bool]] = []
    for each in shown:
        payment, desk.in_reply_to = each.payment, each.received
        if payment.state is not PaymentState.HELD:
            await telling.say_again(desk, [payment])
        elif certain(payment.hold_until) <= desk.now:
            await expire(desk, payment)
        else:
            kinds = {Kind.REFUSE, Kind.BOOK_WITHOUT_STATUS, Kind.STATUS_WITHOUT_BOOKING}
            script = desk.mischief.take(kinds, _subject(payment), stage="release")
            if script is not None and script.kind is Kind.REFUSE:
                await _end(desk, payment, PaymentState.REJECTED, script.reason, "refused by the bank")
            elif script is not None and script.kind is Kind.STATUS_WITHOUT_BOOKING:
                await desk.status([Status(payment.original, "ACSC", key=each.key)])
            else:
                settling.append((each, script is not None))
    if settling:
        await _settle(desk, settling)


async def _settle(desk: Correspondence, settling: Sequence[tuple[Shown, bool]]) -> None:
    """Books payments, and says so; of those with a mark, without a status."""
    payments = [each.payment for each, _ in settling]
    await credit.lock(desk, payments)
    posted = await store.post(
        desk.tx,
        [
            store.Item(_settled_as(each), "SETTLE", each.uetr, hold_account(each.currency), each.credited_account, each.amount)
            for each in payments
        ],
    )
    told: list[Told] = []
    for each, silent in settling:
        payment, booked = each.payment, posted[_settled_as(each.payment)]
        status = Status(payment.original, "ACSC", servicer_reference=booking_reference(booked, "D"), key=each.key)
        entries = booked_entries(payment, payment.original, payment.credited_account, booked)
        told.append(Told(payment.uetr, payment.debtor_account, each.received, status, entries, silent))
    said = await telling.tell(desk, told)
    await store.settle(
        desk.tx,
        [
            store.Settled(uetr, each.key, said[uetr].status, said[uetr].booking)
            for each, _ in settling
            for uetr in (each.payment.uetr,)
        ],
    )
    for each, _ in settling:
        payment, desk.in_reply_to = each.payment, each.received
        await credit.sweep(desk, payment.uetr, {payment.debtor_account, payment.credited_account})
        await desk.contradict(payment.original, "ACSC", payment.debtor_account, "release")


def _settled_as(payment: Payment) -> str:
    """Reference of the posting that books a held payment."""
    return f"settle:{payment.uetr}"


async def expire(desk: Correspondence, payment: Payment) -> None:
    """The hold's time is over: the money goes back, and the sender is told."""
    await _end(desk, payment, PaymentState.EXPIRED, "AB03", "the hold expired")


async def withdraw_credit(desk: Correspondence, payment: Payment) -> None:
    """The provider wants back what it lent for the hold: the hold ends, and the sender is told why."""
    await _end(desk, payment, PaymentState.REJECTED, CREDIT_DENIED, "the credit that covered it was withdrawn")


async def _end(desk: Correspondence, payment: Payment, state: PaymentState, reason: str, text: str) -> None:
    await _give_back(desk, [payment], state, reason)
    await desk.remember(payment.uetr, await desk.status([Status(payment.original, "RJCT", reason, text)]), "RJCT")


async def cancel(desk: Correspondence, request: Cancellation) -> None:
    """Cancels what is held; a payment that never came is given a tombstone, so that it cannot come later."""
    known = await store.find_payments(desk.tx, [item.uetr for item in request.items])
    resolved = [await _resolve(desk, item, known.get(item.uetr)) for item in request.items]
    held = [known[item.item.uetr] for item in resolved if item.accepted and known[item.item.uetr].state is PaymentState.HELD]
    await _give_back(desk, held, PaymentState.CANCELLED, None)
    await desk.resolution(request.case_id, resolved)
    for done in resolved:
        if (payment := known.get(done.item.uetr)) is not None:
            await desk.contradict(payment.original, "CANC", payment.debtor_account, "cancellation")


async def _resolve(desk: Correspondence, item: CancellationItem, payment: Payment | None) -> Resolved:
    if payment is None:
        await store.add_tombstone(desk.tx, desk.counterparty.name, item.uetr)
        return Resolved(item, accepted=False, reason="NOOR", text="never received, and not taken any more")
    item = replace(item, original=payment.original if payment.original.end_to_end_id else item.original)
    if payment.counterparty != desk.counterparty.name:
        return Resolved(item, accepted=False, reason="AGNT", text="the payment is not the sender's")
    if item.amount is not None and payment.amount and item.amount != (payment.amount, payment.currency):
        return Resolved(item, accepted=False, reason="NARR", text="the amount differs from the payment's")
    match payment.state:
        case PaymentState.HELD:
            script = desk.mischief.take({Kind.REFUSE, Kind.PEND}, _subject(payment), stage="cancellation")
            if script is not None and script.kind is Kind.PEND:
                return Resolved(item, accepted=False, pending=True)
            if script is not None:
                return Resolved(item, accepted=False, reason=script.reason, text="refused by the bank")
            return Resolved(item, accepted=True)
        case PaymentState.CANCELLED:
            return Resolved(item, accepted=True)
        case PaymentState.SETTLED:
            return Resolved(item, accepted=False, reason="ARDT", text="already settled")
        case PaymentState.TOMBSTONED:
            return Resolved(item, accepted=False, reason="NOOR", text="never received, and not taken any more")
        case _:
            return Resolved(item, accepted=False, reason="ARJT", text="already rejected")


async def _give_back(desk: Correspondence, payments: list[Payment], state: PaymentState, reason: str | None) -> None:
    """Held money goes back to the debtor, and what was drawn for it to the provider."""
    await credit.lock(desk, payments)
    await store.post(desk.tx, [item for payment in payments for item in (_back(payment), *credit.repay(payment))])
    for payment in payments:
        await store.close_hold(desk.tx, payment.uetr, state, reason=reason)
    for payment in payments:
        await credit.sweep(desk, payment.uetr, {payment.debtor_account})


def _back(payment: Payment) -> store.Item:
    """The posting that gives held money back."""
    held = hold_account(payment.currency)
    return store.Item(f"release:{payment.uetr}", "RELEASE", payment.uetr, held, payment.debtor_account, payment.amount)


def _subject(payment: Payment) -> Subject:
    return Subject(frozenset([payment.uetr]), frozenset([payment.debtor_account]))
