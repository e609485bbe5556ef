"""Clients' requests: each id is answered once, and from then on with the same bytes for ever."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from lockstep_kit.db import Connection
from lockstep_kit.errors import request_id_reused
from lockstep_kit.ids import Digest

#: Claims a request id for a client; waits for whoever is claiming it at this moment.
CLAIM: Final = """
insert into request (request_id, method, digest, client, asked_at) values ($1, $2, $3, $4, clock_timestamp())
on conflict (request_id) do nothing returning asked_at
"""

#: What a request was, whose, and how it was answered.
READ: Final = "select method, digest, client, response from request where request_id = $1"

#: Of requests of before clients were written down. Whoever sends the same again may see their plan, or is refused before it comes to this.
ANYBODY: Final = ""

#: Keeps the answer.
ANSWER: Final = "update request set response = $2 where request_id = $1"


async def claim(tx: Connection, request_id: str, method: str, digest: Digest, client: str) -> datetime | bytes:
    """The database's clock when the request is new; the stored answer when it was answered before.

    Raises:
        LockstepError: REQUEST_ID_REUSED; the id was used for something else, or by another client.
    """
    asked: datetime | None = await tx.fetchval(CLAIM, request_id, method, digest, client)
    if asked is not None:
        return asked
    row = await tx.fetchrow(READ, request_id)
    if row is None or (row["method"], row["digest"]) != (method, digest) or row["client"] not in (client, ANYBODY):
        raise request_id_reused(request_id)
    response: bytes = row["response"]
    return response


async def answer(tx: Connection, request_id: str, response: bytes) -> None:
    """Keep a request's answer, in the transaction of what it did."""
    await tx.execute(ANSWER, request_id, response)
