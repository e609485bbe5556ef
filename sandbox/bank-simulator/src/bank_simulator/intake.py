"""Where requests arrive, one or many at a time.

What comes together is kept, carried out and answered in one transaction, each request by itself: what was acknowledged is durable and done, what failed was
never acknowledged. Two requests about one thing are never in one transaction, but one after the other.

    received  --same key, same content-->  kept as a repeat, last answers sent again
              --same key, other content->  Conflict
              --not valid--------------->  quarantined, CheckError

A repeat changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg
import structlog

from bank_simulator import holds, message_store, payments, reservations, store, telling, undertakings
from bank_simulator.checks import CheckError
from bank_simulator.correspondence import Correspondence
from bank_simulator.database import Connection, Database
from bank_simulator.domain import (
    RELEASE,
    Cancellation,
    Payment,
    PaymentBatch,
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
from bank_simulator.settings import BankSeed, Counterparty

#: Requests that one transaction carries out.
TOGETHER_MAX: Final = 128

log = structlog.get_logger()


class Conflict(Exception):
    """The idempotency key was used for other content."""


class UnknownHold(Exception):
    """This counterparty has no conditional payment with this UETR."""


class WrongKey(Exception):
    """The key does not open the payment's lock."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: a message, or what shows the key of a hold."""

    #: Idempotency key.
    key: str
    body: bytes
    #: UETR and key of the hold that is to be released; None of a message.
    release: tuple[UUID, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request was durably received, and carried out."""

    #: Identification of the message, or UETR of the hold.
    name: str


#: What became of a request; what is none of these errors is told as it came.
Answer: TypeAlias = Accepted | CheckError | Conflict | UnknownHold | WrongKey | Exception


@dataclass(frozen=True, slots=True)
class _Release:
    """A key that is shown."""

    uetr: UUID
    key: bytes


@dataclass(frozen=True, slots=True)
class _Valid:
    """A request that can be read."""

    asked: Asked
    request: Request | _Release
    kind: str
    #: Equal for a repeat.
    content_sha256: bytes
    #: What nobody else may work on meanwhile.
    names: frozenset[str]
    accepted: Accepted

    @property
    def key(self) -> str:
        return self.asked.key


@dataclass(frozen=True, slots=True)
class _CarriedOut:
    """What became of a request that was taken."""

    answer: Answer
    #: For how many seconds its sender is kept waiting.
    pause: float = 0.0


class Intake:
    """The desk's counter."""

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

    async def take(self, counterparty: Counterparty, asked: Sequence[Asked]) -> list[Answer]:
        """Takes requests in their order; says of each what became of it, when all that is accepted is durable."""
        answers: list[Answer | None] = [None] * len(asked)
        valid: list[tuple[int, _Valid]] = []
        for place, each in enumerate(asked):
            try:
                valid.append((place, self._valid(counterparty, each)))
            except CheckError as error:
                answers[place] = await self._quarantined(counterparty, each, error)
        pause = 0.0
        for group in _groups(valid):
            carried = await self._together(counterparty, [each for _, each in group])
            for (place, _), done in zip(group, carried, strict=True):
                answers[place], pause = done.answer, max(pause, done.pause)
        if valid:
            self._delivered(counterparty.name)
        await asyncio.sleep(pause)
        return [answer for answer in answers if answer is not None]

    def _valid(self, counterparty: Counterparty, asked: Asked) -> _Valid:
        name = f"message:{counterparty.name}:{asked.key}"
        if asked.release is not None:
            release = _Release(*asked.release)
            content = hashlib.sha256(f"{RELEASE}:{release.uetr}:".encode() + release.key).digest()
            names = frozenset([name, f"uetr:{release.uetr}"])
            return _Valid(asked, release, RELEASE, content, names, Accepted(str(release.uetr)))
        message = self._read(counterparty, asked.key, asked.body)
        names = frozenset([name, *_names(counterparty.name, message.request)])
        header = message.header
        return _Valid(asked, message.request, header.definition, message.content_sha256, names, Accepted(header.message_id))

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

    async def _quarantined(self, counterparty: Counterparty, asked: Asked, error: CheckError) -> CheckError:
        async with self._database.transaction() as tx:
            number = await message_store.add_quarantined(
                tx, counterparty.name, asked.key, asked.body, error.field, error.rule, str(error)
            )
        log.warning("quarantined", counterparty=counterparty.name, number=number, field=error.field, rule=error.rule)
        return error

    async def _together(self, counterparty: Counterparty, group: Sequence[_Valid]) -> list[_CarriedOut]:
        """Carries out requests in one transaction; where one spoils it, each in one of its own."""
        try:
            return await self._database.run(lambda tx: self._carry_out(tx, counterparty, group))
        except (CheckError, asyncpg.PostgresError) as error:
            if len(group) == 1:
                if not isinstance(error, CheckError):
                    log.exception("request failed", counterparty=counterparty.name, message=group[0].key)
                return [_CarriedOut(error)]
        return [done for each in group for done in await self._together(counterparty, [each])]

    async def _carry_out(self, tx: Connection, counterparty: Counterparty, group: Sequence[_Valid]) -> list[_CarriedOut]:
        await store.lock_names(tx, {name for each in group for name in each.names})
        first = await message_store.find_received(tx, counterparty.name, [each.key for each in group])
        known = await store.find_payments(tx, [each.request.uetr for each in group if isinstance(each.request, _Release)])
        carried = {
            each.key: _CarriedOut(refused)
            for each in group
            if (refused := _refusal(each, first.get(each.key), known, counterparty)) is not None
        }
        taken = [each for each in group if each.key not in carried]
        numbers = await message_store.add_received(tx, counterparty.name, [_received(each, first.get(each.key)) for each in taken])
        answer = await Correspondence.begun(tx, self._bank, counterparty, self._schemas, self._signer)
        heeded: list[_Valid] = []
        for each in taken:
            pause, forgotten = _whims(answer, *_subject(each.request, known))
            carried[each.key] = _CarriedOut(each.accepted, pause)
            if not forgotten:
                heeded.append(each)
        await self._heed(answer, heeded, first, numbers, known)
        await answer.send()
        for each in taken:
            log.info("received", counterparty=counterparty.name, kind=each.kind, message=each.key, repeat=each.key in first)
        return [carried[each.key] for each in group]

    async def _heed(
        self, answer: Correspondence, heeded: Sequence[_Valid], first: Mapping[str, message_store.Received], numbers: Mapping[str, int],
        known: Mapping[UUID, Payment],
    ) -> None:  # fmt: skip
        """What is asked for most is done for all at once."""
        arrived: list[payments.Arrived] = []
        shown: list[holds.Shown] = []
        others: list[_Valid] = []
        for each in heeded:
            if isinstance(each.request, PaymentBatch) and each.key not in first:
                arrived.append(payments.Arrived(each.request, each.key, numbers[each.key]))
            elif isinstance(each.request, _Release):
                shown.append(holds.Shown(known[each.request.uetr], each.request.key, numbers[each.key]))
            else:
                others.append(each)
        await payments.take(answer, arrived, holds.moved(answer, shown))
        await holds.release(answer, shown)
        for each in others:
            answer.in_reply_to = numbers[each.key]
            await self._answer(answer, each, first.get(each.key))

    async def _answer(self, answer: Correspondence, asked: _Valid, first: message_store.Received | None) -> None:
        key = asked.key
        match asked.request, first:
            case PaymentBatch() as batch, message_store.Received() as before:
                await self._repeat_batch(answer, payments.Arrived(batch, key, answer.in_reply_to), before.message_id)
            case Cancellation() as cancellation, None:
                await holds.cancel(answer, cancellation)
            case Cancellation(), message_store.Received() as before:
                answer.again(await message_store.find_replies(answer.tx, before.message_id))
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

    async def _repeat_batch(self, answer: Correspondence, again: payments.Arrived, first: int) -> None:
        """What was last said about its payments; what was refused without being a payment of its own is in the first answer.

        A batch that was never answered was forgotten, and is taken now.
        """
        own = await store.find_payments_of_messages(answer.tx, answer.counterparty.name, [again.message_id])
        replies = await message_store.find_replies(answer.tx, first)
        if not own and not replies:
            await payments.take(answer, [again])
            return
        if len(own) < len(again.batch.payments):
            answer.again(replies[:1])
        await telling.say_again(answer, own)

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
        await telling.say_again(answer, about, query.items)


def _groups(valid: Sequence[tuple[int, _Valid]]) -> Iterator[list[tuple[int, _Valid]]]:
    """What is carried out together: payments and keys, no two about one thing. Anything else is by itself."""
    group: list[tuple[int, _Valid]] = []
    names: set[str] = set()
    for place, each in valid:
        alone = not isinstance(each.request, PaymentBatch | _Release)
        if group and (alone or len(group) == TOGETHER_MAX or not names.isdisjoint(each.names)):
            yield group
            group, names = [], set()
        group.append((place, each))
        names |= each.names
        if alone:
            yield group
            group, names = [], set()
    if group:
        yield group


def _refusal(
    asked: _Valid, first: message_store.Received | None, known: Mapping[UUID, Payment], counterparty: Counterparty
) -> Conflict | UnknownHold | WrongKey | None:
    """Why a request changes nothing, not even what was received."""
    if first is not None and first.content_sha256 != asked.content_sha256:
        return Conflict(asked.key)
    if isinstance(asked.request, _Release):
        payment = known.get(asked.request.uetr)
        if payment is None or payment.counterparty != counterparty.name or payment.hold_lock is None:
            return UnknownHold(str(asked.request.uetr))
        if hashlib.sha256(asked.request.key).digest() != payment.hold_lock:
            return WrongKey(str(asked.request.uetr))
    return None


def _received(asked: _Valid, first: message_store.Received | None) -> message_store.NewReceived:
    return message_store.NewReceived(
        asked.key, asked.kind, asked.asked.body, asked.content_sha256, repeat_of=first.message_id if first else None
    )


def _whims(answer: Correspondence, subject: Subject, stage: Stage) -> tuple[float, bool]:
    """For how many seconds the sender of a request is kept waiting, and whether the request is forgotten."""
    pause = answer.mischief.take({Kind.PAUSE}, subject, stage=stage)
    forgotten = answer.mischief.take({Kind.FORGET}, subject, stage=stage)
    return pause.delay_ms / 1000 if pause else 0.0, forgotten is not None


def _subject(request: Request | _Release, known: Mapping[UUID, Payment]) -> tuple[Subject, Stage]:
    """Payments that a request is about, and at which step it stands."""
    match request:
        case _Release(uetr=uetr):
            return Subject(frozenset([uetr]), frozenset([known[uetr].debtor_account])), "release"
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
    """What a message is about."""
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
