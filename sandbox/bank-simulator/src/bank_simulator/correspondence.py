"""What one transaction says to one counterparty: messages are made once, kept byte for byte, and put into the mailbox at the end.

Here is also where the bank loses, delays and doubles what it says, if it was told to.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Final
from uuid import UUID

from bank_simulator import message_store, store
from bank_simulator.checks import CheckError, certain, require_iban
from bank_simulator.database import Connection
from bank_simulator.domain import (
    BOOKING,
    PAYMENT,
    RECEIPT,
    RESERVATION_REPORT,
    RESOLUTION,
    RETURN,
    STATEMENT,
    STATUS,
    AccountDay,
    BookedEntry,
    Header,
    Original,
    Payment,
    PaymentOrder,
    Receipt,
    ReservationShown,
    Resolved,
    Returned,
    StatedEntry,
    Status,
)
from bank_simulator.instruments import NOTIFICATION, UNDERTAKING_STATUS, Undertaking, UndertakingStatus
from bank_simulator.iso20022.outbound import (
    write_booking,
    write_receipt,
    write_reservation_report,
    write_resolution,
    write_return,
    write_statement,
    write_status,
)
from bank_simulator.iso20022.schemas import Schemas
from bank_simulator.iso20022.signatures import Signer
from bank_simulator.iso20022.trade import write_notification, write_undertaking_status
from bank_simulator.misbehaviour import SPOILS, Kind, Mischief, Stage, Subject, falsified
from bank_simulator.settings import BankSeed, Counterparty
from bank_simulator.spoiling import spoiled_copy

#: What happens to a message that was made.
ON_THE_WAY: Final = frozenset({Kind.LOSE, Kind.DELAY, Kind.DUPLICATE, Kind.REORDER, *SPOILS})


@dataclass(frozen=True, slots=True)
class Made:
    """A message that was made, and is to be kept."""

    header: Header
    #: Payments that it is about.
    uetrs: Sequence[UUID]
    body: bytes
    #: What was received and is answered by it.
    in_reply_to: int | None
    #: Whether it is kept without being sent.
    silent: bool = False


class Correspondence:
    """The bank's side of an exchange, within one transaction."""

    def __init__(
        self, tx: Connection, bank: BankSeed, counterparty: Counterparty, schemas: Schemas, mischief: Mischief, now: datetime,
        signer: Signer | None = None,
    ) -> None:  # fmt: skip
        self.tx = tx
        self.bank = bank
        self.counterparty = counterparty
        self.mischief = mischief
        self.now = now
        self._schemas = schemas
        #: What is answered, where nothing else is said.
        self.in_reply_to: int | None = None
        self._signer = signer
        self._new: list[int] = []
        self._again: list[int] = []

    @classmethod
    async def begun(
        cls, tx: Connection, bank: BankSeed, counterparty: Counterparty, schemas: Schemas, signer: Signer | None
    ) -> Correspondence:
        """The bank's side, by its clock, with what it was told to do wrong."""
        now: datetime = await store.now(tx)
        return cls(tx, bank, counterparty, schemas, await store.mischief(tx), now, signer)

    async def status(self, statuses: Sequence[Status]) -> int:
        """Makes and sends a pacs.002. Returns its number."""
        (number,) = await self.keep([self.made_status(statuses, self.in_reply_to)])
        return number

    def made_status(
        self, statuses: Sequence[Status], in_reply_to: int | None, *, whole_message: str | None = None, kind: str = PAYMENT,
        silent: bool = False,
    ) -> Made:  # fmt: skip
        """A pacs.002; silent is kept without being sent. `kind` is the definition of the whole message."""
        header = self._header("S", STATUS)
        body = write_status(header, statuses, whole_message=whole_message, kind=kind, schemas=self._schemas)
        return Made(header, [s.original.uetr for s in statuses if s.original.uetr], body, in_reply_to, silent=silent)

    async def resolution(self, case_id: str | None, resolved: Sequence[Resolved]) -> int:
        """Makes and sends a camt.029."""
        header = self._header("R", RESOLUTION)
        body = write_resolution(header, case_id, resolved, self._schemas)
        return await self._keep(header, [item.item.uetr for item in resolved], body)

    def made_booking(self, booked: Sequence[tuple[Subject, Sequence[BookedEntry]]], in_reply_to: int | None) -> Made:
        """The camt.054 of payments."""
        entries: list[BookedEntry] = []
        for subject, sides in booked:
            script = self.mischief.take({Kind.MISBOOK}, subject, message=BOOKING)
            entries += sides if script is None else [falsified(entry, script) for entry in sides]
        # Never earlier than what it tells of.
        header = replace(self._header("B", BOOKING), created_at=max(entry.booked_at for entry in entries))
        uetrs = [uetr for subject, _ in booked for uetr in subject.uetrs]
        return Made(header, uetrs, write_booking(header, entries, self._schemas), in_reply_to)

    async def undertaking_status(self, told: UndertakingStatus) -> int:
        """Makes and sends a tsrv.019. Returns its number."""
        header = self._header("U", UNDERTAKING_STATUS)
        return await self._keep(header, [told.uetr], write_undertaking_status(header, told, self._schemas))

    async def notification(self, undertaking: Undertaking, issued_on: date, issuance: bytes, *, amount: int | None) -> int:
        """Makes and sends the tsrv.003 of an undertaking; `amount` states another than it has. Returns its number."""
        header = self._header("N", NOTIFICATION)
        body = write_notification(header, undertaking, issued_on, issuance, self._schemas, amount=amount)
        return await self._keep(header, [undertaking.uetr], body)

    async def statement(
        self, stated: AccountDay, page: Sequence[StatedEntry], number: int, *, last: bool, uetrs: Sequence[UUID]
    ) -> int:
        """Makes and sends one page of a camt.053."""
        header = self._header("A", STATEMENT)
        return await self._keep(header, uetrs, write_statement(header, stated, page, number, last=last, schemas=self._schemas))

    async def receipt(self, receipt: Receipt) -> int:
        """Makes and sends a camt.025."""
        header = self._header("T", RECEIPT)
        return await self._keep(header, [receipt.uetr], write_receipt(header, receipt, self._schemas))

    async def reservation_report(self, query: str, shown: ReservationShown) -> int:
        """Makes and sends a camt.047."""
        header = self._header("V", RESERVATION_REPORT)
        return await self._keep(header, [shown.uetr], write_reservation_report(header, query, shown, self._schemas))

    async def payment_return(self, returned: Returned) -> int:
        """Makes and sends a pacs.004."""
        header = self._header("P", RETURN)
        return await self._keep(header, [returned.payment.uetr], write_return(header, returned, self._schemas))

    async def returned_booking(self, entries: Sequence[BookedEntry], amount: int, reason: str) -> int:
        """Makes and sends the camt.054 of a return: the sides of the payment's booking, the other way."""
        turned = [
            replace(
                entry, credit=not entry.credit, amount=amount, return_reason=reason,
                servicer_reference=entry.servicer_reference[:-1] + ("D" if entry.credit else "C"),
            )
            for entry in entries
        ]  # fmt: skip
        header = replace(self._header("B", BOOKING), created_at=entries[0].booked_at)
        return await self._keep(header, [certain(entries[0].original.uetr)], write_booking(header, turned, self._schemas))

    async def contradict(self, original: Original, said: str, debtor_account: str, stage: Stage) -> None:
        """Says something else than what was just said of a payment, if told to. Nothing but words: it is not remembered as the payment's status."""
        subject = Subject(frozenset([certain(original.uetr)]), frozenset([debtor_account]))
        script = self.mischief.take({Kind.CONTRADICT}, subject, stage=stage, said=said)
        if script is not None:
            reason = script.reason if script.says == "RJCT" else None
            text = "the opposite of what was said before" if reason else None
            message = await self.status([Status(original, script.says, reason, text)])
            if script.delay_ms:
                self._new.remove(message)
                await message_store.defer(self.tx, message, script.delay_ms)

    async def remember(self, uetr: UUID, message: int, code: str, booking: int | None = None) -> None:
        """From now on this is what was last said about a payment, and of its booking, where another message tells that."""
        await store.set_status(self.tx, uetr, message, code, booking)

    def again(self, messages: Sequence[int]) -> None:
        """Sends messages that were made before; each once."""
        self._again += [message for message in dict.fromkeys(messages) if message not in self._again]

    async def send(self) -> None:
        """Puts everything into the mailbox. The last thing in the transaction."""
        wanted = [*self._again, *self._new]
        if self._again or self.mischief.active:
            wanted = await self._spoiled(await message_store.read_messages(self.tx, wanted))
        await store.save_mischief(self.tx, self.mischief)
        await message_store.put(self.tx, self.counterparty.name, wanted)

    async def _spoiled(self, messages: Sequence[message_store.MadeMessage]) -> list[int]:
        kept: list[int] = []
        last: list[int] = []
        for made in messages:
            if made.late:
                continue  # it is on its way
            subject = Subject(made.uetrs, made.debtor_accounts)
            script = self.mischief.take(ON_THE_WAY, subject, message=made.kind)
            if script is None:
                kept.append(made.message_id)
            elif script.kind is Kind.DELAY:
                await message_store.defer(self.tx, made.message_id, script.delay_ms)
            elif script.kind is Kind.DUPLICATE:
                kept += [made.message_id] * script.copies
            elif script.kind is Kind.REORDER:
                last.append(made.message_id)
            elif script.kind in SPOILS:
                kept.append(await spoiled_copy(self.tx, made.message_id, script, self._sign))
        return [*kept, *last]

    def _sign(self, body: bytes) -> bytes:
        """What the counterparty gets, signed if that is agreed with it."""
        return body if self._signer is None or self.counterparty.certificates is None else self._signer.sign(body)

    def _header(self, letter: str, definition: str) -> Header:
        return Header(self.bank.bic, self.counterparty.bic, self.new_id(letter), definition, self.now)

    @staticmethod
    def new_id(letter: str) -> str:
        """A letter and 75 random bits: fits every limit on identifications."""
        return letter + base64.b32encode(secrets.token_bytes(10)).decode()[:15]

    async def keep(self, made: Sequence[Made]) -> list[int]:
        """Keeps messages, which are sent at the end of the transaction; returns their numbers."""
        numbers = await message_store.add_messages(
            self.tx,
            self.counterparty.name,
            [
                message_store.NewMessage(
                    each.header.definition, each.header.message_id, each.in_reply_to, each.uetrs, self._sign(each.body)
                )
                for each in made
            ],
        )
        self._new += [number for number, each in zip(numbers, made, strict=True) if not each.silent]
        return numbers

    async def _keep(self, header: Header, uetrs: Sequence[UUID], body: bytes) -> int:
        (number,) = await self.keep([Made(header, uetrs, body, self.in_reply_to)])
        return number


def booked_entries(payment: Payment | PaymentOrder, original: Original, credited: str, posted: store.Posted) -> list[BookedEntry]:
    """What the sender is told of a booking: both sides, but not what was booked on the account of a correspondent of the bank."""
    sides = [(payment.debtor_account, False, "D"), (credited, True, "C")]
    return [
        BookedEntry(
            account, _is_iban(account), credit, payment.amount, payment.currency, payment.scale, original,
            booking_reference(posted, side), posted.booked_at, posted.booking_date,
        )
        for account, credit, side in sides[: 2 if credited == payment.creditor_account else 1]
    ]  # fmt: skip


def booking_reference(posted: store.Posted, side: str) -> str:
    """The bank's reference of one side of a booking; unique."""
    return f"B{posted.posting_id:011d}{side}"


def return_name(posting_id: int) -> str:
    """The bank's name of a return; unique."""
    return f"R{posting_id:011d}"


def hold_reference(posted: store.Posted) -> str:
    """The bank's reference of a hold; unique."""
    return f"H{posted.posting_id:011d}"


def _is_iban(account: str) -> bool:
    try:
        require_iban("", account)
    except CheckError:
        return False
    return True
