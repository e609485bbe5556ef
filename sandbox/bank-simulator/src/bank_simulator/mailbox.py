"""Counterparties' mailboxes: in order, read from any cursor, acknowledged, the same after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from bank_simulator.database import Database

#: Looks again this often, even if nobody woke it.
LOOK_SECONDS: Final = 1.0

_READ = """
-- Messages after a cursor, in order.
select item.cursor, made.body, made.sha256 from mailbox_items as item join messages_out as made using (message_id)
where item.counterparty = $1 and item.cursor > $2 order by item.cursor limit $3
"""

_ACKNOWLEDGED = """
-- How far a mailbox was acknowledged.
select acknowledged_cursor from mailboxes where counterparty = $1
"""

_ACKNOWLEDGE = """
-- Acknowledges messages; never goes back, nor beyond what there is.
update mailboxes set acknowledged_cursor = greatest(acknowledged_cursor, $2) where counterparty = $1 and $2 <= last_cursor
returning acknowledged_cursor
"""


class UnknownCursor(Exception):
    """The mailbox holds no message with this cursor."""


@dataclass(frozen=True, slots=True)
class MailboxItem:
    """A message in a mailbox."""

    cursor: int
    body: bytes
    sha256: bytes


class Mailboxes:
    """Reading and acknowledging. Messages stay: a counterparty that lost its memory reads from an earlier cursor again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._arrivals: dict[str, asyncio.Event] = {}
        self._closed = False

    def wake(self, counterparty: str) -> None:
        """Something may have arrived."""
        arrived = self._arrivals.pop(counterparty, None)
        if arrived is not None:
            arrived.set()

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True
        for counterparty in list(self._arrivals):
            self.wake(counterparty)

    async def read(self, counterparty: str, after: int | None, limit: int, wait_seconds: float) -> list[MailboxItem]:
        """Messages after a cursor, or after what was acknowledged; waits a while if there are none."""
        give_up = asyncio.get_running_loop().time() + wait_seconds
        if after is None:
            after = await self._acknowledged(counterparty)
        while True:
            # Listening begins before looking, so that nothing arrives unseen between the two.
            arrived = self._arrivals.setdefault(counterparty, asyncio.Event())
            async with self._database.statement() as connection:
                rows = await connection.fetch(_READ, counterparty, after, limit)
            remaining = give_up - asyncio.get_running_loop().time()
            if rows or remaining <= 0 or self._closed:
                return [MailboxItem(row["cursor"], row["body"], row["sha256"]) for row in rows]
            try:
                await asyncio.wait_for(arrived.wait(), min(remaining, LOOK_SECONDS))
            except TimeoutError:
                continue

    async def acknowledge(self, counterparty: str, upto: int) -> None:
        """Everything up to a cursor was received.

        Raises:
            UnknownCursor: There is no such message yet.
        """
        async with self._database.statement() as connection:
            acknowledged = await connection.fetchval(_ACKNOWLEDGE, counterparty, upto)
        if acknowledged is None and upto > 0:
            raise UnknownCursor(str(upto))

    async def _acknowledged(self, counterparty: str) -> int:
        async with self._database.statement() as connection:
            return await connection.fetchval(_ACKNOWLEDGED, counterparty) or 0
