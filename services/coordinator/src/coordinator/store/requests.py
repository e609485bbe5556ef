"""Clients' requests: each id is answered once, and from then on with the same bytes for ever.

A request's row is written with its answer, in the transaction of what it did: one that was refused leaves none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, request_id_reused
from lockstep_kit.ids import Digest
from lockstep_kit.values import dataclass

#: The database's clock, and what requests were, whose, and how they were answered; nulls of those that were not.
READ: Final = """
select clock_timestamp() as now, asked.id, request.method, request.digest, request.client, request.response
from unnest($1::text[]) as asked (id) left join request on request.request_id = asked.id
"""

#: Keeps answers, but for ids that were used meanwhile; waits for whoever is using one at this moment.
KEEP: Final = """
insert into request (request_id, method, digest, client, response, asked_at)
select new.*, clock_timestamp() from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[])
    as new (request_id, method, digest, client, response)
order by request_id on conflict (request_id) do nothing returning request_id
"""

#: Of requests of before clients were written down. Whoever sends the same again may see their plan, or is refused before it comes to this.
ANYBODY: Final = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, as far as its id goes."""

    #: Drawn by the client.
    request_id: str
    #: Method that it was sent to.
    method: str
    #: SHA-256 of its canonical bytes.
    digest: Digest
    #: SPIFFE id of the client that sent it: an answer is given again to nobody else.
    client: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of requests."""

    #: The database's clock.
    now: datetime
    #: By id: the answer that was given, or why the id cannot be used for this.
    answers: Mapping[str, bytes | LockstepError]


class RequestRaced(Exception):
    """Another transaction has used a request's id meanwhile; nothing of this one must stay. Asked again, the request is known."""


async def read(connection: Connection, requests: Sequence[Request]) -> Known:
    """What is known of requests, of which at least one must be given."""
    wanted = {each.request_id: each for each in requests}
    rows = await connection.fetch(READ, list(wanted))
    found = {row["id"]: _answer(wanted[row["id"]], row) for row in rows if row["digest"] is not None}
    return Known(rows[0]["now"], found)


def _answer(request: Request, row: asyncpg.Record) -> bytes | LockstepError:
    response = row["response"]
    same = (row["method"], row["digest"]) == (request.method, request.digest) and row["client"] in (request.client, ANYBODY)
    return response if same and isinstance(response, bytes) else request_id_reused(request.request_id)


async def keep(tx: Connection, answers: Sequence[tuple[Request, bytes]]) -> None:
    """Keep requests with their answers, in the transaction of what they did.

    Raises:
        RequestRaced: an id was used meanwhile.
    """
    kept = await tx.fetch(
        KEEP,
        [each.request_id for each, _ in answers],
        [each.method for each, _ in answers],
        [each.digest for each, _ in answers],
        [each.client for each, _ in answers],
        [response for _, response in answers],
    )
    if len(kept) != len(answers):
        raise RequestRaced
