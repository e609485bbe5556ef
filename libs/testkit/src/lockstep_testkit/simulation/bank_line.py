"""The line between the bank-gateway and its bank: a `Rail` on which requests and answers get lost, come twice, and come too late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bank_gateway.rail import Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Request
from lockstep_testkit.simulation.bank_desk import Desk, Item
from lockstep_testkit.simulation.loop import Process

#: How long a call takes each way.
TRAVEL_SECONDS: Final = 0.01
#: How long somebody waits who gets no answer, as the HTTP rail does.
REQUEST_SECONDS_MAX: Final = 10.0
DELIVERIES_MAX: Final = 20


@dataclass(slots=True)
class RailTrouble:
    """What goes wrong on the line; changed while a simulation runs. Each is a share of the calls."""

    #: A request does not arrive, or only when nobody waits for its answer any more.
    loses: float = 0.0
    #: A request is carried out, and its answer does not arrive.
    times_out: float = 0.0
    #: A request arrives again, and how much later at the most.
    repeats: float = 0.0
    late_seconds_max: float = 20.0
    #: The mailbox cannot be read or acknowledged.
    mailbox_fails: float = 0.0
    #: A delivery arrives damaged.
    damages: float = 0.0

    def clear(self) -> None:
        """Let everything through."""
        self.loses = self.times_out = self.repeats = self.mailbox_fails = self.damages = 0.0


class Line:
    """One gateway's line to the desk."""

    def __init__(self, desk: Desk, trouble: RailTrouble, chance: random.Random, outside: Process, counts: dict[str, int]) -> None:
        self._desk = desk
        self._trouble = trouble
        self._chance = chance
        self._outside = outside
        self._counts = counts

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        """As `Rail.hand_over`; what happens to one of the requests happens to it alone, which is more than can happen on a real line."""
        return await asyncio.gather(*(self._carried(self._asking(each)) for each in requests))

    def _asking(self, request: Request) -> Callable[[], Handover]:
        if isinstance(request, Message):
            return lambda: self._desk.receive(request.octets, request.idempotency_key)
        return lambda: self._desk.release(request.uetr, request.key, request.idempotency_key)

    async def _carried(self, ask: Callable[[], Handover]) -> Handover:
        trouble = self._trouble
        await self._travel()
        if self._happens(trouble.loses, "bank_request_lost"):
            if self._chance.random() < 0.5:
                self._later(ask)
            return await self._unanswered("the request was lost")
        if self._happens(trouble.repeats, "bank_request_repeated"):
            self._later(ask)
        answer = ask()
        if self._happens(trouble.times_out, "bank_request_timed_out"):
            return await self._unanswered("the answer was lost")
        await self._travel()
        return answer

    async def _unanswered(self, why: str) -> Handover:
        await asyncio.sleep(self._chance.choice((0.0, REQUEST_SECONDS_MAX)))
        return NoAnswer(why)

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        """As `Rail.receive`."""
        await self._travel()
        self._mailbox()
        items = await self._desk.mailbox.after(after, wait_seconds)
        await self._travel()
        self._mailbox()
        return [self._delivery(each) for each in items[: self._chance.choice((1, 3, DELIVERIES_MAX))]]

    async def acknowledge(self, upto: int) -> None:
        """As `Rail.acknowledge`; the bank keeps what was acknowledged."""
        del upto
        await self._travel()
        self._mailbox()

    async def close(self) -> None:
        """As `Rail.close`."""

    def _mailbox(self) -> None:
        if self._happens(self._trouble.mailbox_fails, "mailbox_failed"):
            raise MailboxUnavailable("HTTP 503")

    def _delivery(self, item: Item) -> Delivery:
        if item.damages and self._happens(self._trouble.damages, "delivery_damaged"):
            item.damages -= 1
            return Delivery(item.cursor, item.octets[: len(item.octets) // 2], "has another hash")
        return Delivery(item.cursor, item.octets)

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.random() * TRAVEL_SECONDS)

    def _later(self, ask: Callable[[], Handover]) -> None:
        seconds = self._chance.random() * self._trouble.late_seconds_max
        self._outside.loop.call_later(seconds, ask, context=self._outside.context())

    def _happens(self, share: float, kind: str) -> bool:
        if share and self._chance.random() < share:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            return True
        return False
