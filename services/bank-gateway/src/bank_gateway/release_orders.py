"""Releases that go out as files: built once, kept with the other messages before they are sent, and sent again as they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from bank_gateway import store
from lockstep_kit.db import Connection

#: What the kept messages call one; ISO 20022 has no release of a hold.
KIND: Final = "ReleaseOrder"

#: Keeps other replicas from building another order under the same name.
LOCK: Final = "select from bank_outbox where action = 'RELEASE' and idempotency_key = $1 for update"

#: An order as it was built.
KEPT: Final = "select octets from bank_message where direction = 'OUT' and message_id = $1 and kind = $2"


async def kept(tx: Connection, name: str, uetr: str, build: Callable[[datetime], bytes]) -> bytes:
    """The order of a name; the first time it is built, as of the database's clock, and kept."""
    await tx.execute(LOCK, name)
    found: bytes | None = await tx.fetchval(KEPT, name, KIND)
    if found is not None:
        return found
    octets = build(await store.now(tx))
    await store.keep_messages(tx, [store.KeptMessage("OUT", name, KIND, uetr, octets)])
    return octets
