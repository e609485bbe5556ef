"""Intraday credit. A line is an account of its provider, so that lending is a booking like any other and the debt is that account's balance.

    DRAW    line -> debtor      with the hold, for exactly what the debtor's own money does not cover
    REPAY   debtor -> line      the hold ends without a booking: all that was drawn for it, at once
    SWEEP   account -> line     the payment is booked, so that what was drawn for it is due: as soon as money is free on the account, be it now
                                or when money comes in or comes free, and before anybody else can have it

What was drawn for a hold that still stands is not due. Whoever moves money of an account that has a line locks that line with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from bank_simulator import store
from bank_simulator.books import hold_account, line_account
from bank_simulator.correspondence import Correspondence
from bank_simulator.domain import Payment


class LineState(StrEnum):
    """What the provider says of a line."""

    #: It lends up to the limit.
    GRANTED = "GRANTED"
    #: It lends nothing more; what is drawn stays so.
    DENIED = "DENIED"
    #: It lends nothing more, and wants back what it lent for holds: these end.
    WITHDRAWN = "WITHDRAWN"


#: How the line's account says it.
STATUS_OF = {LineState.GRANTED: "OPEN", LineState.DENIED: "BLOCKED", LineState.WITHDRAWN: "CLOSED"}


@dataclass(frozen=True, slots=True)
class Due:
    """An account's debt of booked payments, and the money that is free to repay it."""

    due: int
    free: int

    @property
    def swept(self) -> int:
        """What is repaid now."""
        return max(0, min(self.due, self.free))


def draw(payment: UUID, debtor: str, amount: int) -> list[store.Item]:
    """The posting that lends what a hold lacks."""
    if not amount:
        return []
    return [store.Item(f"draw:{payment}", "DRAW", payment, line_account(debtor), debtor, amount)]


def repay(payment: Payment) -> list[store.Item]:
    """The posting that gives back all that was drawn for a hold."""
    if not payment.drawn:
        return []
    debtor = payment.debtor_account
    return [store.Item(f"repay:{payment.uetr}", "REPAY", payment.uetr, debtor, line_account(debtor), payment.drawn)]


def moved(desk: Correspondence, payments: Collection[Payment]) -> set[str]:
    """The accounts that the end of these holds may move."""
    accounts = {account for payment in payments for account in (payment.debtor_account, payment.credited_account)}
    lines = {line_account(account) for account in accounts & desk.bank.borrowers}
    return accounts | lines | {hold_account(payment.currency) for payment in payments}


async def lock(desk: Correspondence, payments: Collection[Payment]) -> None:
    """Locks, in the books' order, whatever the end of these holds may move. Where nobody lends, posting does."""
    if any(
        payment.debtor_account in desk.bank.borrowers or payment.credited_account in desk.bank.borrowers for payment in payments
    ):
        await store.accounts(desk.tx, moved(desk, payments), lock=True)


async def sweep(desk: Correspondence, uetr: UUID, accounts: Collection[str]) -> None:
    """Repays what is due on accounts out of what is free on them, after a payment's posting. Their lines are locked."""
    for account in sorted(set(accounts) & desk.bank.borrowers):
        amount = Due(*await store.due(desk.tx, account, line_account(account))).swept
        if amount:
            item = store.Item(f"sweep:{uetr}:{account}", "SWEEP", uetr, account, line_account(account), amount)
            await store.post(desk.tx, [item])
