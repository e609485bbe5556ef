"""The simulated bank's desk: does what it is asked, by its own book, and says what it did; or loses, repeats, delays or contradicts it.

What it says of its book may get lost, and is told again when it is asked again. What it says against its book it says beside the truth, which then is
not lost: whoever is told both can call a person, and whoever is told a lie alone could not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from bank_gateway.rail import Accepted, Handover, TurnedDown
from lockstep_kit.ids import sha256
from lockstep_testkit.simulation import bank_messages as iso
from lockstep_testkit.simulation.bank_book import Book, Standing
from lockstep_testkit.simulation.bank_messages import Asked, Header, Names, Request
from lockstep_testkit.simulation.loop import Process, VirtualLoop
from lockstep_testkit.simulation.memory import EPOCH
from lockstep_testkit.simulation.timeline import Timeline

#: How long an answer takes that is not late.
ANSWER_SECONDS: Final = 0.05
#: Share of the rejected payments of which the bank rejects the whole message, naming none.
GROUP_REJECTIONS: Final = 0.4
#: How often a delivery comes damaged at the most.
DAMAGES_MAX: Final = 6
_TURNED_DOWN: Final = TurnedDown("400", "Document", "SCHEMA")
_CONFLICT: Final = TurnedDown("409", "Idempotency-Key", "SAME_CONTENT", differs=True)
_UNKNOWN_HOLD: Final = TurnedDown("404", "uetr", "KNOWN_HOLD")
_WRONG_KEY: Final = TurnedDown("422", "key", "LOCK")
#: Why payments are refused, releases are refused, and cancellations are.
_REFUSALS: Final = ("AM04", "AC06", "AM23")
#: Bookings that are not the payment's, in words.
ANOTHER_AMOUNT, ANOTHER_UETR = "another amount", "another UETR"
#: A UETR that no leg has.
STRANGER: Final = "00000000-0000-4000-8000-000000000000"


@dataclass(slots=True)
class DeskTrouble:
    """How the bank misbehaves; changed while a simulation runs. Each is a share of the occasions."""

    #: A payment is not taken, for want of money, credit or a mandate.
    refuses: float = 0.0
    #: A release is not executed, and the hold ends.
    refuses_release: float = 0.0
    #: A cancellation is refused or kept pending, and the hold stays.
    refuses_cancellation: float = 0.0
    #: A payment that comes again is rejected as a repeat.
    rejects_repeats: float = 0.0
    #: A hold ends long before its time, by itself or because a provider withdraws its credit.
    ends_early: float = 0.0
    #: A valid request is turned away at the door.
    turns_away: float = 0.0
    #: A request is accepted, and nothing comes of it.
    forgets: float = 0.0
    #: An answer is never made; is made again; is made late.
    loses: float = 0.0
    repeats: float = 0.0
    delays: float = 0.0
    delay_seconds_max: float = 20.0
    #: Something that is not in the book is said beside what is.
    contradicts: float = 0.0

    def clear(self) -> None:
        """Behave."""
        self.refuses = self.refuses_release = self.refuses_cancellation = self.ends_early = self.turns_away = self.forgets = 0.0
        self.loses = self.repeats = self.delays = self.contradicts = self.rejects_repeats = 0.0


@dataclass(slots=True)
class Item:
    """A message in the mailbox."""

    #: Its place.
    cursor: int
    #: The message.
    octets: bytes
    #: How often it may still come damaged; what comes so three times is kept apart unread.
    damages: int


class Mailbox:
    """Messages to the customer; they stay readable from any place."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.items: Final[list[Item]] = []
        self._loop = loop
        self._waiting: list[asyncio.Future[None]] = []

    def put(self, octets: bytes, *, sure: bool) -> None:
        """Add a message, and wake who waits; one that is sure can be read in the end."""
        self.items.append(Item(len(self.items) + 1, octets, 2 if sure else DAMAGES_MAX))
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def after(self, place: int, seconds: float) -> list[Item]:
        """Messages after a place; waits for the first."""
        if len(self.items) <= place:
            added: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(added)
            try:
                async with asyncio.timeout(seconds):
                    await added
            except TimeoutError:
                return []
        return self.items[place:]


@dataclass(slots=True)
class _File:
    """What the desk keeps of a payment."""

    #: How it is named.
    names: Names
    #: What it said last of where it stands, and of its booking.
    said: list[bytes] = field(default_factory=list)
    #: The standing of which it said it.
    said_of: Standing = Standing.UNKNOWN
    #: The key that was shown.
    key: bytes = b""


class Desk:
    """Takes requests, keeps the book, fills the mailbox."""

    def __init__(
        self, book: Book, chance: random.Random, outside: Process, timeline: Timeline, counts: dict[str, int], *, lapses: bool
    ) -> None:
        self.book: Final = book
        self.trouble: Final = DeskTrouble()
        self.mailbox: Final = Mailbox(outside.loop)
        #: Payments of which something was said that the book did not show: where each stood, and what was said.
        self.contradicted: Final[dict[str, list[tuple[Standing, str]]]] = {}
        #: Answers that were made and are not in the mailbox yet.
        self.on_its_way = 0
        #: Payments about which a valid request was turned away, or was acknowledged and forgotten.
        self.slighted: Final[set[str]] = set()
        self._chance = chance
        self._outside = outside
        self._loop = outside.loop
        self._timeline = timeline
        self._counts = counts
        #: Whether holds end when their time is over; a bank that does not end them waits to be told.
        self._lapses = lapses
        #: Whether what was said is said again in the same octets, or anew.
        self._verbatim = chance.random() < 0.5
        #: Idempotency key -> what was asked, how it was answered, and what to say when it is asked again.
        self._asked: dict[str, tuple[bytes, Handover, Callable[[], None]]] = {}
        self._files: dict[str, _File] = {}
        self._last_made = EPOCH
        self._made = 0

    # -- requests ----------------------------------------------------------------------------------------------------

    def receive(self, octets: bytes, key: str) -> Handover:
        """Take a message."""
        request = iso.read(octets)
        return self._once(key, iso.content_of(octets), request.names.uetr, lambda: self._do(request))

    def release(self, uetr: str, shown: bytes, key: str) -> Handover:
        """Take a key."""
        if self.book.standing(uetr) in (Standing.UNKNOWN, Standing.BARRED):
            return _UNKNOWN_HOLD
        if not self.book.opens(uetr, shown):
            return _WRONG_KEY
        return self._once(key, shown, uetr, lambda: self._execute(uetr, shown))

    def _once(self, key: str, content: bytes, uetr: str, do: Callable[[], Callable[[], None]]) -> Handover:
        """A repeat is answered as the first was."""
        known = self._asked.get(key)
        if known is not None:
            before, handover, again = known
            if before != sha256(content):
                return _CONFLICT
            again()
            return handover
        trouble, handover, again = self.trouble, Accepted(), _nothing
        if self._happens(trouble.turns_away, "request_turned_away"):
            self.slighted.add(uetr)
            handover = _TURNED_DOWN
        elif self._happens(trouble.forgets, "request_forgotten"):
            self.slighted.add(uetr)
        else:
            again = do()
        self._asked[key] = sha256(content), handover, again
        return handover

    def _do(self, request: Request) -> Callable[[], None]:
        file = self._files.setdefault(request.names.uetr, _File(request.names))
        match request.asked:
            case Asked.PAYMENT:
                if self.book.standing(request.names.uetr) is Standing.UNKNOWN:
                    self._place(request)
                self._tell(file)
                return lambda: self._repeated(file)
            case Asked.CANCELLATION:
                return self._cancel(file)
            case Asked.INQUIRY:
                if self.book.standing(request.names.uetr) is Standing.UNKNOWN:
                    self.book.bar(request.names.uetr)
                self._tell(file)
                return lambda: self._tell(file)

    def _place(self, request: Request) -> None:
        """Hold the money of a payment, or turn it down."""
        uetr, terms, until = request.names.uetr, request.terms, request.expires_at
        if until is None or terms is None:
            raise AssertionError("a conditional payment says what it moves, and until when")
        if until <= self._now():
            self.book.turn_down(uetr, terms, request.lock, "TM01")
        elif self._happens(self.trouble.refuses, "payment_refused"):
            self.book.turn_down(uetr, terms, request.lock, self._chance.choice(_REFUSALS))
        else:
            self.book.hold(uetr, terms, request.lock)
        seconds = (until - self._now()).total_seconds()
        if self._happens(self.trouble.ends_early, "hold_ends_early"):
            self._later(seconds * self._chance.random(), lambda: self._end(uetr, self._chance.choice(("AB03", "AM23"))))
        if self._lapses:
            self._later(seconds, lambda: self._end(uetr, "AB03"))

    def _repeated(self, file: _File) -> None:
        """A payment comes again: the same is said of it again, or that it is a repeat, which says nothing of the first."""
        if self._happens(self.trouble.rejects_repeats, "repeat_rejected"):
            self._send(iso.status(self._header(), file.names, "RJCT", "DU03"), sure=False)
        else:
            self._tell(file)

    def _end(self, uetr: str, reason: str) -> None:
        if self.book.standing(uetr) is Standing.HELD:
            self.book.let_go(uetr, Standing.REJECTED, reason)
            self._tell(self._files[uetr])

    def _execute(self, uetr: str, key: bytes) -> Callable[[], None]:
        file = self._files[uetr]
        if self.book.standing(uetr) is Standing.HELD:
            if self._happens(self.trouble.refuses_release, "release_refused"):
                self.book.let_go(uetr, Standing.REJECTED, self._chance.choice(_REFUSALS))
            else:
                self.book.book(uetr)
                file.key = key
        self._tell(file)
        return lambda: self._tell(file)

    def _cancel(self, file: _File) -> Callable[[], None]:
        uetr, book = file.names.uetr, self.book
        answers = {
            Standing.BARRED: ("RJCR", "NOOR"),
            Standing.CANCELLED: ("CNCL", ""),
            Standing.REJECTED: ("RJCR", "ARJT"),
            Standing.BOOKED: ("RJCR", "ARDT"),
        }
        if book.standing(uetr) is Standing.UNKNOWN:
            book.bar(uetr)
        if book.standing(uetr) is Standing.HELD:
            if self._happens(self.trouble.refuses_cancellation, "cancellation_refused"):
                answers[Standing.HELD] = self._chance.choice((("RJCR", "NARR"), ("PDCR", "")))
            else:
                book.let_go(uetr, Standing.CANCELLED, "DS02")
        answer = iso.resolution(self._header(), file.names, *answers[book.standing(uetr)])
        self._say(file, [answer], cancelling=True)
        return lambda: self._say(file, [answer], cancelling=True)

    # -- answers -----------------------------------------------------------------------------------------------------

    def _tell(self, file: _File) -> None:
        """Say where a payment stands; of one that is booked, its booking too."""
        uetr = file.names.uetr
        payment = self.book.payments[uetr]
        if payment.standing is not file.said_of or not self._verbatim:
            file.said_of = payment.standing
            code = {Standing.HELD: "ACFW", Standing.BOOKED: "ACSC"}.get(payment.standing, "RJCT")
            whole = payment.standing is Standing.REJECTED and not payment.was_held and self._chance.random() < GROUP_REJECTIONS
            header = self._header()
            file.said = [
                iso.group_rejection(header, file.names, payment.reason)
                if whole
                else iso.status(header, file.names, code, payment.reason, file.key)
            ]
            if payment.standing is Standing.BOOKED:
                file.said.append(self._booking(file, payment.terms.units, uetr))
        self._say(file, file.said)

    def _say(self, file: _File, truth: list[bytes], *, cancelling: bool = False) -> None:
        standing = self.book.standing(file.names.uetr)
        if not self._happens(self.trouble.contradicts, "bank_contradicts"):
            for each in truth:
                self._send(each, sure=False)
            return
        lie, told = self._lie(file, standing, cancelling=cancelling)
        self.contradicted.setdefault(file.names.uetr, []).append((standing, told))
        self._timeline.tell("bank", "says what its book does not show", uetr=file.names.uetr, standing=standing, said=told)
        both = [*truth, lie]
        self._chance.shuffle(both)
        for each in both:
            self._send(each, sure=True)

    def _lie(self, file: _File, standing: Standing, *, cancelling: bool) -> tuple[bytes, str]:
        """Something that the book does not show, and what it is in words."""
        payment, names = self.book.payments[file.names.uetr], file.names
        if cancelling and self._chance.random() < 0.5:
            words = {("CNCL", ""), ("RJCR", "ARDT"), ("RJCR", "NOOR")}
            right = {Standing.CANCELLED: ("CNCL", ""), Standing.BOOKED: ("RJCR", "ARDT"), Standing.BARRED: ("RJCR", "NOOR")}
            code, reason = self._chance.choice(sorted(words - {right.get(standing, ("", ""))}))
            return iso.resolution(self._header(), names, code, reason), f"{code} {reason}".strip()
        kind = self._chance.choice(("status", "status", "status", "amount", "uetr", "key"))
        if kind == "amount" and standing is not Standing.BARRED:
            return self._booking(file, payment.terms.units + 1, names.uetr), ANOTHER_AMOUNT
        if kind == "uetr" and standing is not Standing.BARRED:
            return self._booking(file, payment.terms.units, STRANGER), ANOTHER_UETR
        if kind == "key":
            return iso.status(self._header(), names, "ACSC", "", sha256(b"no key")), "ACSC with another key"
        true = {Standing.HELD: "ACFW", Standing.BOOKED: "ACSC"}.get(standing, "RJCT")
        code = self._chance.choice(sorted({"ACFW", "ACSC", "RJCT", "BLCK"} - {true}))
        return iso.status(self._header(), names, code, "AM04" if code == "RJCT" else ""), code

    def _booking(self, file: _File, units: int, uetr: str) -> bytes:
        debtor = self.book.payments[file.names.uetr].terms.debtor
        return iso.booking(self._header(), file.names, debtor, units, f"R{file.names.instruction_id}", uetr)

    def _send(self, octets: bytes, *, sure: bool) -> None:
        """Put an answer into the mailbox, as far as the bank's own line allows."""
        trouble = self.trouble
        if not sure and self._happens(trouble.loses, "bank_answer_lost"):
            return
        times = 2 if self._happens(trouble.repeats, "bank_answer_repeated") else 1
        for _ in range(times):
            late = self._happens(trouble.delays, "bank_answer_late")
            seconds = self._chance.random() * (trouble.delay_seconds_max if late else ANSWER_SECONDS)
            self.on_its_way += 1
            self._later(seconds, lambda: self._arrive(octets, sure=sure))

    def _arrive(self, octets: bytes, *, sure: bool) -> None:
        self.on_its_way -= 1
        self.mailbox.put(octets, sure=sure)

    # -- means -------------------------------------------------------------------------------------------------------

    def _header(self) -> Header:
        """A fresh name, and a time after every one before."""
        self._made += 1
        self._last_made = max(self._now(), self._last_made + timedelta(microseconds=1))
        return Header(f"B{self._made:06}", self._last_made)

    def _now(self) -> datetime:
        """The bank's own clock."""
        return EPOCH + timedelta(microseconds=round(self._loop.time() * 1e6))

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._loop.call_later(seconds, what, context=self._outside.context())

    def _happens(self, share: float, kind: str) -> bool:
        if share and self._chance.random() < share:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            return True
        return False


def _nothing() -> None:
    """There is nothing to be said again."""
