"""A bell that wakes everybody who waits: listeners take a ticket, read, and then wait on the ticket, so that no ring is missed in between."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes all who hold a ticket drawn before the ring."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody."""
        rung, self._next = self._next, asyncio.Event()
        rung.set()

    def ticket(self) -> asyncio.Event:
        """Set by the next ring."""
        return self._next


async def heard(ticket: asyncio.Event, seconds: float) -> bool:
    """Whether the bell rang within the time."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await ticket.wait()
    except TimeoutError:
        return False
    return True
