"""Where requests arrive.

Each is kept, carried out and answered in one transaction: what was acknowledged is durable and done, what failed was never acknowledged.

    received  --same key, same content-->  kept as a repeat, last answers sent again
              --same key, other content->  Conflict
              --not valid--------------->  quarantined, CheckError

A repeat changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from bank_simulator import holds, payments, reservation_store, reservations, returns, statements, store, undertakings
from bank_simulator.amounts import minor_units
from bank_simulator.books import line_account
from bank_simulator.checks import CheckError
from bank_simulator.correspondence import Correspondence
from bank_simulator.credit import STATUS_OF, LineState
from bank_simulator.database import Connection, Database
from bank_simulator.domain import (
    RELEASE,
    Cancellation,
    Payment,
    PaymentBatch,
    PaymentState,
    Request,
    ReservationDeletion,
    ReservationOrder,
    ReservationQuery,
    Status,
    StatusQuery,
)
from bank_simulator.instruments import Application, Issuance, Termination
from bank_simulator.iso20022.inbound import BusinessMessage, read
from bank_simulator.iso20022.schemas import Schemas
from bank_simulator.iso20022.signatures import Signer
from bank_simulator.misbehaviour import Kind, Stage, Subject
from bank_simulator.reservation_store import ReservationState
from bank_simulator.settings import BankSeed, Counterparty

#: Holds and late messages that are handled in one go.
DUE_MAX: Final = 100

log = structlog.get_logger()


class Conflict(Exception):
    """The idempotency key was used for other content."""


class UnknownHold(Exception):
    """This counterparty has no conditional payment with this UETR."""


class UnknownLine(Exception):
    """The account has no credit line."""


class WrongKey(Exception):
    """The key does not open the payment's lock."""


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

    async def receive(self, counterparty: Counterparty, key: str, body: bytes) -> str:
        """Takes a message; returns its identification when it is durably received.

        Raises:
            CheckError: It is not valid, and was put into quarantine.
            Conflict: The key was used for another message.
        """
        try:
            message = self._read(counterparty, key, body)
        except CheckError as error:
            async with self._database.transaction() as tx:
                number = await store.add_quarantined(tx, counterparty.name, key, body, error.field, error.rule, str(error))
            log.warning("quarantined", counterparty=counterparty.name, number=number, field=error.field, rule=error.rule)
            raise
        pause = await self._database.run(lambda tx: self._handle(tx, counterparty, key, body, message))
        self._delivered(counterparty.name)
        await asyncio.sleep(pause)
        return message.header.message_id

    def _read(self, counterparty: Counterparty, key: str, body: bytes) -> BusinessMessage:
        message = read(body, self._schemas, counterparty.certificates)
        for field, stated, expected in (
            ("AppHdr/Fr", message.header.sender, counterparty.bic), ("AppHdr/To", message.header.receiver, self._bank.bic),
            ("AppHdr/BizMsgIdr", message.header.message_id, key),
        ):  # fmt: skip
            if stated != expected:
                rule = "IDEMPOTENCY_KEY_MATCH" if expected is key else "PARTY_MATCH"
                raise CheckError(field, rule, f"it says {stated}, and the connection {expected}")
        return message

    async def _handle(self, tx: Connection, counterparty: Counterparty, key: str, body: bytes, message: BusinessMessage) -> float:
        """Carries a message out; returns for how many seconds its sender is kept waiting."""
        await store.lock_names(tx, {f"message:{counterparty.name}:{key}", *_names(counterparty.name, message.request)})
        first = await store.find_received(tx, counterparty.name, key)
        if first is not None and first.content_sha256 != message.content_sha256:
            raise Conflict(key)
        repeat_of = first.message_id if first else None
        received = await store.add_received(
            tx, counterparty.name, key, message.header.definition, body, message.content_sha256, repeat_of=repeat_of
        )
        answer = await self._correspondence(tx, counterparty, received)
        subject, stage = _subject(message.request)
        pause, forgotten = _whims(answer, subject, stage)
        match message.request, first:
            case _ if forgotten:
                pass
            case PaymentBatch() as batch, None:
                await payments.take(answer, batch, key)
            case PaymentBatch() as batch, store.Received() as before:
                await self._repeat_batch(answer, batch, key, before.message_id)
            case Cancellation() as cancellation, None:
                await holds.cancel(answer, cancellation)
            case Cancellation(), store.Received() as before:
                answer.again(await store.find_replies(tx, before.message_id))
            case StatusQuery() as query, _:
                await self._tell(answer, query)
            case Application() as application, _:
                await undertakings.apply(answer, application)
            case Issuance() as issuance, _:
                await undertakings.issue(answer, issuance)
            case Termination() as termination, _:
                await undertakings.terminate(answer, termination)
            case ReservationOrder() as order, _:
                await reservations.reserve(answer, order, key)
            case ReservationDeletion() as deletion, _:
                await reservations.delete(answer, deletion, key)
            case ReservationQuery() as query, _:
                await reservations.report(answer, query, key)
        await answer.send()
        log.info("received", counterparty=counterparty.name, kind=message.header.definition, message=key, repeat=first is not None)
        return pause

    async def _repeat_batch(self, answer: Correspondence, batch: PaymentBatch, message_id: str, first: int) -> None:
        """What was last said about its payments; what was refused without being a payment of its own is in the first answer.

        A batch that was never answered was forgotten, and is taken now.
        """
        own = await store.find_payments_of_messages(answer.tx, answer.counterparty.name, [message_id])
        replies = await store.find_replies(answer.tx, first)
        if not own and not replies:
            await payments.take(answer, batch, message_id)
            return
        if len(own) < len(batch.payments):
            answer.again(replies[:1])
        await answer.say_again(own)

    async def _tell(self, answer: Correspondence, query: StatusQuery) -> None:
        known = await store.find_payments(answer.tx, [item.uetr for item in query.items if item.uetr])
        about = [payment for payment in known.values() if payment.counterparty == answer.counterparty.name]
        for item in query.items:
            if item.uetr and item.uetr not in known:
                await store.add_tombstone(answer.tx, answer.counterparty.name, item.uetr)
                about += (await store.find_payments(answer.tx, [item.uetr])).values()
        foreign = [item for item in query.items if item.uetr in known and known[item.uetr].counterparty != answer.counterparty.name]
        if foreign:
            await answer.status([Status(item, "RJCT", "AGNT", "the payment is not the sender's") for item in foreign])
        about += await store.find_payments_of_messages(answer.tx, answer.counterparty.name, query.message_ids)
        await answer.say_again(about, query.items)

    async def release(self, counterparty: Counterparty, idempotency_key: str, uetr: UUID, key: bytes, body: bytes) -> None:
        """Takes the key of a hold; the business answer goes to the mailbox.

        Raises:
            UnknownHold, WrongKey, Conflict: Nothing was changed.
        """
        pause = await self._database.run(lambda tx: self._release(tx, counterparty, idempotency_key, uetr, key, body))
        self._delivered(counterparty.name)
        await asyncio.sleep(pause)

    async def _release(
        self, tx: Connection, counterparty: Counterparty, idempotency_key: str, uetr: UUID, key: bytes, body: bytes
    ) -> float:  # fmt: skip
        await store.lock_names(tx, {f"message:{counterparty.name}:{idempotency_key}", f"uetr:{uetr}"})
        content = hashlib.sha256(f"{RELEASE}:{uetr}:".encode() + key).digest()
        first = await store.find_received(tx, counterparty.name, idempotency_key)
        if first is not None and first.content_sha256 != content:
            raise Conflict(idempotency_key)
        payment = (await store.find_payments(tx, [uetr])).get(uetr)
        if payment is None or payment.counterparty != counterparty.name or payment.hold_lock is None:
            raise UnknownHold(str(uetr))
        if hashlib.sha256(key).digest() != payment.hold_lock:
            raise WrongKey(str(uetr))
        repeat_of = first.message_id if first else None
        received = await store.add_received(tx, counterparty.name, idempotency_key, RELEASE, body, content, repeat_of=repeat_of)
        answer = await self._correspondence(tx, counterparty, received)
        pause, forgotten = _whims(answer, Subject(frozenset([uetr]), frozenset([payment.debtor_account])), "release")
        if not forgotten:
            await holds.release(answer, payment, key)
        await answer.send()
        log.info("release", counterparty=counterparty.name, uetr=str(uetr), state=payment.state, repeat=first is not None)
        return pause

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
        known = await reservation_store.find(tx, uetr)
        if known is None or known.state is not ReservationState.RESERVED:
            return None
        answer = await self._correspondence(tx, self._counterparties[known.counterparty], None)
        await reservations.expire(answer, known)
        await answer.send()
        return known.counterparty

    async def return_payment(self, uetr: UUID, amount: str | None, reason: str) -> None:
        """Gives back what is left of a settled payment, or an amount of it; its sender is told.

        Raises:
            UnknownHold: There is no such payment.
            NotReturnable, AmountError: Nothing was changed.
        """
        counterparty = await self._database.run(partial(self._return_payment, uetr=uetr, amount=amount, reason=reason))
        self._delivered(counterparty)

    async def _return_payment(self, tx: Connection, uetr: UUID, amount: str | None, reason: str) -> str:
        await store.lock_names(tx, {f"uetr:{uetr}"})
        payment = (await store.find_payments(tx, [uetr])).get(uetr)
        if payment is None:
            raise UnknownHold(str(uetr))
        answer = await self._correspondence(tx, self._counterparties[payment.counterparty], None)
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
        answer = await self._correspondence(tx, self._counterparties[payment.counterparty], None)
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
        answer = await self._correspondence(tx, counterparty, None)
        messages = await statements.state(answer, account, day, anew=anew)
        await answer.send()
        return messages

    async def deliver_due(self) -> int:
        """Puts late messages whose time has come into their mailboxes; returns how many."""
        async with self._database.transaction() as tx:
            due = await store.take_deferred(tx, DUE_MAX)
            for counterparty in sorted({name for name, _ in due}):
                await store.put(tx, counterparty, [message for name, message in due if name == counterparty])
        for counterparty in {name for name, _ in due}:
            self._delivered(counterparty)
        return len(due)

    async def seconds_to_next(self) -> float | None:
        """How long nothing becomes due; None if nothing will."""
        async with self._database.transaction() as tx:
            found = (await store.seconds_to_next(tx), await reservation_store.seconds_to_next(tx))
        return min((seconds for seconds in found if seconds is not None), default=None)

    async def _correspondence(self, tx: Connection, counterparty: Counterparty, received: int | None) -> Correspondence:
        now: datetime = await store.now(tx)
        return Correspondence(tx, self._bank, counterparty, self._schemas, await store.mischief(tx), now, received, self._signer)


def _whims(answer: Correspondence, subject: Subject, stage: Stage) -> tuple[float, bool]:
    """For how many seconds the sender of a request is kept waiting, and whether the request is forgotten."""
    pause = answer.mischief.take({Kind.PAUSE}, subject, stage=stage)
    forgotten = answer.mischief.take({Kind.FORGET}, subject, stage=stage)
    return pause.delay_ms / 1000 if pause else 0.0, forgotten is not None


def _subject(request: Request) -> tuple[Subject, Stage]:
    """Payments that a request is about, and at which step it stands."""
    match request:
        case PaymentBatch(payments=orders):
            debtors = frozenset(order.debtor_account for order in orders)
            return Subject(frozenset(order.uetr for order in orders), debtors), "payment"
        case Cancellation(items=items):
            return Subject(frozenset(item.uetr for item in items), frozenset()), "cancellation"
        case StatusQuery(items=originals):
            return Subject(frozenset(original.uetr for original in originals if original.uetr), frozenset()), "inquiry"
        case Application(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset()), "application"
        case Issuance(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset()), "issuance"
        case Termination(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset()), "termination"
        case ReservationOrder(uetr=uetr, account_id=account):
            return reservations.subject_of(uetr, account), "reservation"
        case ReservationDeletion(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset()), "deletion"
        case ReservationQuery(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset()), "inquiry"


def _names(counterparty: str, request: Request) -> set[str]:
    """What nobody else may work on meanwhile."""
    match request:
        case PaymentBatch(payments=orders):
            instructions = {f"instruction:{counterparty}:{order.instruction_id}" for order in orders if order.instruction_id}
            return instructions | {f"uetr:{order.uetr}" for order in orders}
        case Cancellation(items=items):
            return {f"uetr:{item.uetr}" for item in items}
        case StatusQuery(items=originals):
            return {f"uetr:{original.uetr}" for original in originals}
        case Application(uetr=uetr) | Issuance(uetr=uetr) | Termination(uetr=uetr):
            return {f"uetr:{uetr}"}
        case ReservationOrder(uetr=uetr) | ReservationDeletion(uetr=uetr) | ReservationQuery(uetr=uetr):
            return {f"uetr:{uetr}"}
