"""Money of a settled payment comes back, whole or in part: booked, told by a pacs.004, and notified. Under the lock of the payment's UETR."""

from __future__ import annotations

from bank_simulator import reservation_store, store
from bank_simulator.correspondence import Correspondence, booked_entries, return_name
from bank_simulator.domain import Payment, PaymentState, Returned


class NotReturnable(ValueError):
    """The payment is not settled, or less of it is left."""


async def give_back(desk: Correspondence, payment: Payment, amount: int | None, reason: str) -> None:
    """Returns what is left of a payment, or an amount of it.

    Raises:
        NotReturnable: Nothing was changed.
    """
    left = payment.amount - payment.returned
    amount = left if amount is None else amount
    if payment.state is not PaymentState.SETTLED or not 0 < amount <= left:
        raise NotReturnable(f"the payment is {payment.state}, and {left} of it may come back")
    reference = f"return:{payment.uetr}:{payment.returned}"
    item = store.Item(reference, "RETURN", payment.uetr, payment.credited_account, payment.debtor_account, amount)
    posted = (await store.post(desk.tx, [item]))[reference]
    await reservation_store.add_returned(desk.tx, payment.uetr, amount)
    await desk.payment_return(Returned(payment, amount, reason, return_name(posted.posting_id)))
    await desk.returned_booking(booked_entries(payment, payment.original, payment.credited_account, posted), amount, reason)
