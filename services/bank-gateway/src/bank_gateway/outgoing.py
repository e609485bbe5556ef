"""What is said to the bank within one transaction: gathered while steps are taken, queued and kept together at the end. Holds no rules."""

from __future__ import annotations

from bank_gateway import outbox_store, store
from bank_gateway.outbox_store import Queued
from bank_gateway.store import KeptMessage
from lockstep_kit.db import Connection


class Outgoing:
    """Messages, keys and repeats, in the order in which they are to go."""

    def __init__(self) -> None:
        self._queued: list[Queued] = []
        self._messages: dict[str, KeptMessage] = {}

    def add(self, queued: Queued, message: KeptMessage | None = None) -> None:
        """Something to queue, and the message that it is, unless it is kept already or is none."""
        self._queued.append(queued)
        if message is not None:
            self._messages[queued.idempotency_key] = message

    async def flush(self, tx: Connection) -> None:
        """Queue what was gathered, and keep the messages that were not queued before."""
        new = await outbox_store.enqueue(tx, self._queued)
        await store.keep_messages(tx, [message for key, message in self._messages.items() if key in new])
        self._queued, self._messages = [], {}
