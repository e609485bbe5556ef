"""What the bank does that nobody asks for by message: holds and reservations end, money comes back, days end and are stated, late messages go out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from bank_simulator import holds, message_store, reservation_store, reservations, returns, statements, store
from bank_simulator.amounts import minor_units
from bank_simulator.books import line_account
from bank_simulator.correspondence import Correspondence
from bank_simulator.credit import STATUS_OF, LineState
from bank_simulator.database import Connection, Database
from bank_simulator.domain import (
    Payment,
    PaymentState,
)
from bank_simulator.iso20022.schemas import Schemas
from bank_simulator.iso20022.signatures import Signer
from bank_simulator.reservation_store import ReservationState
from bank_simulator.settings import BankSeed, Counterparty

#: Holds and late messages that are handled in one go.
DUE_MAX: Final = 100

log = structlog.get_logger()


class UnknownPayment(Exception):
    """There is no payment with this UETR."""


class UnknownLine(Exception):
    """The account has no credit line."""


class Desk:
    """The bank's payments desk."""

    def __init__(
        self,
        database: Database,
        bank: BankSeed,
        schemas: Schemas,
        *,
        delivered: Callable[[str], None],
        signer: Signer | None = None,
    ) -> None:
        """`delivered` is called with a counterparty's name after its mailbox, or when something is due, may have changed."""
        self._database = database
        self._bank = bank
        self._schemas = schemas
        self._delivered = delivered
        self._signer = signer
        self._counterparties = {counterparty.name: counterparty for counterparty in bank.counterparties}

    async def set_line(self, account: str, state: LineState) -> int:
        """What the liquidity provider says of an account's credit line; returns how many holds end because it wants back what it lent for them.

        Raises:
            UnknownLine: The account has none.
        """
        async with self._database.transaction() as tx:
            # From here on nothing is drawn: whoever judges a payment locks the line, and sees this.
            if not await store.set_line(tx, line_account(account), STATUS_OF[state]):
                raise UnknownLine(account)
        if state is not LineState.WITHDRAWN:
            return 0
        async with self._database.transaction() as tx:
            lent = await store.lent_holds(tx, account)
        ended = [await self._database.run(partial(self._end_hold, uetr=uetr, end=holds.withdraw_credit)) for uetr in lent]
        for payment in ended:
            if payment is not None:
                self._delivered(payment.counterparty)
        return sum(payment is not None for payment in ended)

    async def do_due(self) -> float | None:
        """Does what is due; for how many seconds nothing else is, as far as was known before, and None where nothing will be."""
        async with self._database.statement() as connection:
            look = await store.look(connection)
        if look.unstated or statements.is_over(self._bank, look.day, look.now):
            await self.end_day_if_due()
        if look.is_due(look.message_at):
            await self.deliver_due()
        if look.is_due(look.hold_at) or look.is_due(look.reservation_at):
            await self.expire_due()
        ahead = [at for at in (look.message_at, look.hold_at, look.reservation_at) if at is not None]
        return (min(ahead) - look.now).total_seconds() if ahead else None

    async def expire_due(self) -> int:
        """Ends holds whose time is over; returns how many. One that fails keeps no other from ending; its error is raised at the end."""
        async with self._database.transaction() as tx:
            due = await store.due_holds(tx, DUE_MAX)
        failed: Exception | None = None
        for uetr in due:
            try:
                expired = await self._database.run(partial(self._end_hold, uetr=uetr, end=holds.expire))
            except Exception as error:  # noqa: BLE001 - raised below
                failed = error
                continue
            if expired is not None:
                self._delivered(expired.counterparty)
        if failed is not None:
            raise failed
        return len(due) + await self._expire_reservations()

    async def _expire_reservations(self) -> int:
        async with self._database.transaction() as tx:
            due = await reservation_store.due(tx, DUE_MAX)
        for uetr in due:
            counterparty = await self._database.run(partial(self._expire_reservation, uetr=uetr))
            if counterparty is not None:
                self._delivered(counterparty)
        return len(due)

    async def expire(self, uetr: UUID) -> bool:
        """Ends a hold as if its time were over; False where there is none."""
        async with self._database.transaction() as tx:
            known = uetr in await store.find_payments(tx, [uetr])
        expired = await self._database.run(partial(self._end_hold, uetr=uetr, end=holds.expire)) if known else None
        if expired is not None:
            self._delivered(expired.counterparty)
        return expired is not None

    async def _expire_reservation(self, tx: Connection, uetr: UUID) -> str | None:
        """Ends a reservation whose time is over; returns whose it was, or None where it has ended already."""
        await store.lock_names(tx, {f"uetr:{uetr}"})
        known = (await reservation_store.find(tx, [uetr])).get(uetr)
        if known is None or known.state is not ReservationState.RESERVED:
            return None
        answer = await self._correspondence(tx, self._counterparties[known.counterparty])
        await reservations.expire(answer, known)
        await answer.send()
        return known.counterparty

    async def return_payment(self, uetr: UUID, amount: str | None, reason: str) -> None:
        """Gives back what is left of a settled payment, or an amount of it; its sender is told.

        Raises:
            UnknownPayment: There is no such payment.
            NotReturnable, AmountError: Nothing was changed.
        """
        counterparty = await self._database.run(partial(self._return_payment, uetr=uetr, amount=amount, reason=reason))
        self._delivered(counterparty)

    async def _return_payment(self, tx: Connection, uetr: UUID, amount: str | None, reason: str) -> str:
        await store.lock_names(tx, {f"uetr:{uetr}"})
        payment = (await store.find_payments(tx, [uetr])).get(uetr)
        if payment is None:
            raise UnknownPayment(str(uetr))
        answer = await self._correspondence(tx, self._counterparties[payment.counterparty])
        minor = None if amount is None else minor_units(amount, payment.currency)
        await returns.give_back(answer, payment, minor, reason)
        await answer.send()
        return payment.counterparty

    async def _end_hold(
        self, tx: Connection, uetr: UUID, end: Callable[[Correspondence, Payment], Awaitable[None]]
    ) -> Payment | None:  # fmt: skip
        """Ends a hold by the bank's own doing; None where it has ended already."""
        await store.lock_names(tx, {f"uetr:{uetr}"})
        payment = (await store.find_payments(tx, [uetr]))[uetr]
        if payment.state is not PaymentState.HELD:
            return None
        answer = await self._correspondence(tx, self._counterparties[payment.counterparty])
        await end(answer, payment)
        await answer.send()
        log.info("hold ended", uetr=str(uetr), why=end.__name__)
        return payment

    async def end_day(self) -> date:
        """Ends the booking day that is open, and states it; returns it."""
        day = await self._database.run(statements.close_day)
        await self.state_days()
        return day

    async def end_day_if_due(self) -> None:
        """Ends the booking day whose time is over, and states every day that is over and not stated yet, as after a crash."""
        async with self._database.transaction() as tx:
            over, unstated = await statements.day_is_over(tx, self._bank), await statements.unstated_days(tx)
        if over:
            await self._database.run(statements.close_day)
        if over or unstated:
            await self.state_days()

    async def state_days(self) -> None:
        """Makes the statements of days that are over, account by account; one that was made stays as it is."""
        async with self._database.transaction() as tx:
            days = await statements.unstated_days(tx)
        for day in days:
            for counterparty in self._bank.counterparties:
                await self.state(counterparty, day)
            async with self._database.transaction() as tx:
                await statements.day_is_stated(tx, day)

    async def state(self, counterparty: Counterparty, day: date, account: str | None = None, *, anew: bool = False) -> int:
        """Sends a counterparty the statements of a day, or of one account; returns how many messages they have.

        Raises:
            statements.UnknownDay: The day is not over.
        """
        async with self._database.transaction() as tx:
            wanted = [row for row in await statements.stated_accounts(tx, counterparty) if account in (None, row["account_id"])]
        made = [await self._database.run(partial(self._state, counterparty, row, day, anew)) for row in wanted]
        self._delivered(counterparty.name)
        return sum(made)

    async def state_anew(self, day: date, account: str) -> int:
        """Sends an account's statement of a day once more, made anew, to everybody who gets it; returns how many messages that were.

        Raises:
            statements.UnknownDay: The day is not over.
        """
        return sum([await self.state(counterparty, day, account, anew=True) for counterparty in self._bank.counterparties])

    async def _state(self, counterparty: Counterparty, account: asyncpg.Record, day: date, anew: bool, tx: Connection) -> int:
        await store.lock_names(tx, {statements.lock_name(counterparty, account["account_id"])})
        answer = await self._correspondence(tx, counterparty)
        messages = await statements.state(answer, account, day, anew=anew)
        await answer.send()
        return messages

    async def deliver_due(self) -> int:
        """Puts late messages whose time has come into their mailboxes; returns how many."""
        async with self._database.transaction() as tx:
            due = await message_store.take_deferred(tx, DUE_MAX)
            for counterparty in sorted({name for name, _ in due}):
                await message_store.put(tx, counterparty, [message for name, message in due if name == counterparty])
        for counterparty in {name for name, _ in due}:
            self._delivered(counterparty)
        return len(due)

    async def _correspondence(self, tx: Connection, counterparty: Counterparty) -> Correspondence:
        return await Correspondence.begun(tx, self._bank, counterparty, self._schemas, self._signer)
