"""When the bank was last heard of: a rail that notes what became of each attempt, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from bank_gateway.rail import Delivery, Handover, MailboxUnavailable, NoAnswer, Rail, Request
from bank_gateway.store import COUNT_MATTERS
from lockstep.installation.v1.installation_service_pb2 import BankState
from lockstep_kit.convert import time_to_pb
from lockstep_kit.db import Database

#: Orders that the bank does not have yet, or may not have.
WAITING: Final = "select count(*) from bank_outbox where state in ('QUEUED', 'SENT')"


class NotedRail:
    """A rail over another one, which notes when the bank answered and why it did not."""

    def __init__(self, rail: Rail) -> None:
        self._rail = rail
        #: When the bank last answered; None until it did.
        self.answered_at: datetime | None = None
        #: Why the last attempt got no answer; "" where it got one.
        self.failure = ""

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        """Hand over what goes to the bank at the same time."""
        handovers = await self._rail.hand_over(requests)
        for handover in handovers:
            if isinstance(handover, NoAnswer):
                self.failure = handover.why
            else:
                self._heard()
        return handovers

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        """Messages after a place, in order; waits for the first.

        Raises:
            MailboxUnavailable: it could not be read.
        """
        try:
            found = await self._rail.receive(after, wait_seconds)
        except MailboxUnavailable as error:
            self.failure = str(error)
            raise
        self._heard()
        return found

    async def acknowledge(self, upto: int) -> None:
        """Tell the bank that everything up to a place is stored here.

        Raises:
            MailboxUnavailable: it could not be told.
        """
        await self._rail.acknowledge(upto)

    async def close(self) -> None:
        """Close connections."""
        await self._rail.close()

    def _heard(self) -> None:
        self.answered_at, self.failure = datetime.now(UTC), ""


async def read_state(db: Database, rail: NotedRail, bank_bic: str) -> BankState:
    """What is told of the bank now."""
    async with db.connection() as connection:
        waiting: int = await connection.fetchval(WAITING)
        matters: int = await connection.fetchval(COUNT_MATTERS)
    state = BankState(bank_bic=bank_bic, failure=rail.failure, waiting_count=waiting, matter_count=matters)
    if rail.answered_at is not None:
        state.answer_time.CopyFrom(time_to_pb(rail.answered_at))
    return state
