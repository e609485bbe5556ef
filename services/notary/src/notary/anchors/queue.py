"""The queue of roots that are to be anchored, and what shows those that are. Every statement on `anchor`.

A root is requested in somebody's own transaction: once that commits, the root is anchored, whatever crashes and however long the chain is away.
Nothing is anchored before the block is final.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from lockstep_contracts.notary import AnchorKind
from lockstep_kit.db import Connection
from lockstep_kit.values import dataclass
from notary.anchors.judging import Order

_BEFORE_ALL: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Channel on which requests, and transactions that came to their end without an anchor, are announced.
CHANNEL: Final = "anchor"
#: Channel on which it is announced that roots of batches of plans are anchored.
PLACED_CHANNEL: Final = "anchor_placed"

#: Queues roots, and announces them; one that is known is left as it is.
REQUEST: Final = """
with fresh as (
    insert into anchor (kind, root, tree_size)
    select * from unnest($1::smallint[], $2::bytea[], $3::bigint[]) as asked (kind, root, tree_size) order by root
    on conflict (root) do nothing returning root
)
select pg_notify('anchor', '') from fresh limit 1
"""

#: What roots are known as.
KNOWN: Final = "select root, kind, tree_size from anchor where root = any($1)"

#: A root, and its last transaction; after each that was of no use it rests twice as long, and ten minutes at the most.
_WAITING: Final = """
    root, kind, tree_size, attempt, settled, skip_code, skip_detail, requested_at,
    ordered_at < clock_timestamp() - least(interval '10 minutes', interval '1 second' * power(2, least(attempt, 20) - 1)) as rested
"""

#: A page of the roots that no transaction carries now, the oldest first.
DUE: Final = f"""
select {_WAITING} from anchor
where block_hash is null and trouble = '' and (intent_key is null or settled) and (requested_at, root) > ($1, $2)
order by requested_at, root limit $3
"""

#: The same rows again, locked, in one order; those that another replica has taken further are found changed.
LOCK: Final = f"select {_WAITING} from anchor where root = any($1) and block_hash is null order by root for update"

#: Notes which transaction carries roots now, in the transaction that queues it.
ORDER: Final = """
update anchor set attempt = attempt + 1, intent_key = $2, ordered_at = clock_timestamp(), settled = false, transaction_hash = '',
    skip_code = '', skip_detail = ''
where root = any($1)
"""

#: Roots that transactions carry, and that are not anchored yet.
CARRIED: Final = "select kind, root, tree_size from anchor where intent_key = any($1) and block_hash is null"

#: Notes that a transaction came to its end, and which of its roots it skipped.
SETTLE: Final = """
update anchor set settled = true, transaction_hash = $2, skip_code = coalesce(skip.code, $6), skip_detail = coalesce(skip.detail, $7)
from anchor as mine left join unnest($3::bytea[], $4::text[], $5::text[]) as skip (root, code, detail) using (root)
where mine.intent_key = $1 and anchor.root = mine.root and anchor.block_hash is null
returning anchor.root
"""

#: Announces that roots are to be looked at.
NOTIFY: Final = "select pg_notify('anchor', '')"

#: Notes what shows that roots are anchored: the transaction of ours that carried them, with its bytes and its block, or else the block in which they
#: were found; announces those of batches.
PLACE: Final = """
with placed as (
    update anchor set raw_transaction = ours.raw, block_number = coalesce(ours.block_number, $2), block_hash = coalesce(ours.block_hash, $3),
        anchored_at = clock_timestamp()
    from anchor as mine left join lateral (
        select attempt.raw, sent.block_number, sent.block_hash
        from evm_transaction as sent join evm_attempt as attempt
            on attempt.transaction_id = sent.id and attempt.transaction_hash = sent.transaction_hash
        where sent.idempotency_key = mine.intent_key and sent.state = 'final' and mine.skip_code = ''
    ) as ours on true
    where mine.root = any($1) and anchor.root = mine.root
    returning anchor.kind
)
select pg_notify('anchor_placed', '') from placed where kind <> $4 limit 1
"""

#: Says in one sentence why a root will never be anchored.
TROUBLE: Final = "update anchor set trouble = $2 where root = $1"

#: Roots that are anchored, with what shows it.
ANCHORED: Final = """
select root, kind, tree_size, raw_transaction, block_number, block_hash from anchor where root = any($1) and block_hash is not null
"""


class AnchorConflict(Exception):
    """The root is known with another kind or another number of leaves; nothing was queued."""

    def __init__(self, root: bytes) -> None:
        super().__init__(f"the root {root.hex()} is known with another kind or another number of leaves")
        self.root = root


@dataclass(frozen=True, slots=True)
class AnchorRequest:
    """A root that is to be anchored."""

    #: What it is the root of.
    kind: AnchorKind
    #: The root (32 bytes).
    root: bytes
    #: Number of leaves under it, at least 1.
    size: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A root that is not anchored yet."""

    #: What was asked for.
    request: AnchorRequest
    #: The last transaction that carried it; None: none has.
    order: Order | None
    #: When it was asked for.
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Anchored:
    """A root in a block that is final."""

    #: What was asked for.
    request: AnchorRequest
    #: The signed transaction as it was sent; b"" where none of ours was needed.
    raw_transaction: bytes
    #: Block in which the registry holds the root.
    block_number: int
    #: Its hash.
    block_hash: bytes


async def request(tx: Connection, requests: Sequence[AnchorRequest]) -> None:
    """Have roots anchored once the caller's transaction has committed; what is known already is left as it is.

    Raises:
        AnchorConflict: a root is known with another kind or another number of leaves.
    """
    roots = [each.root for each in requests]
    await tx.execute(REQUEST, [int(each.kind) for each in requests], roots, [each.size for each in requests])
    known = {row["root"]: (row["kind"], row["tree_size"]) for row in await tx.fetch(KNOWN, roots)}
    for each in requests:
        if known[each.root] != (each.kind, each.size):
            raise AnchorConflict(each.root)


async def due(connection: Connection, limit: int, after: Waiting | None = None) -> list[Waiting]:
    """A page of the roots that are to be looked at, the oldest first, after one of them."""
    place = (after.requested_at, after.request.root) if after is not None else (_BEFORE_ALL, b"")
    return [_waiting(row) for row in await connection.fetch(DUE, *place, limit)]


async def lock(tx: Connection, roots: Sequence[bytes]) -> list[Waiting]:
    """Roots that are not anchored yet, locked."""
    return [_waiting(row) for row in await tx.fetch(LOCK, list(roots))]


async def order(tx: Connection, roots: Sequence[bytes], intent_key: str) -> None:
    """Note which transaction carries roots now."""
    await tx.execute(ORDER, list(roots), intent_key)


async def settle(
    tx: Connection, intent_key: str, transaction_hash: bytes, skips: Sequence[tuple[bytes, str, str]], otherwise: tuple[str, str]
) -> set[bytes]:
    """Note that a transaction came to its end; the roots that it carried. `otherwise` is the code and text of roots not skipped by name."""
    columns = [key for key, _, _ in skips], [code for _, code, _ in skips], [detail for _, _, detail in skips]
    return {row["root"] for row in await tx.fetch(SETTLE, intent_key, transaction_hash, *columns, *otherwise)}


async def carried(connection: Connection, intent_keys: Sequence[str]) -> list[AnchorRequest]:
    """Roots that transactions carry, and that are not anchored yet."""
    return [_request(row) for row in await connection.fetch(CARRIED, list(intent_keys))]


async def tell(tx: Connection) -> None:
    """Have roots looked at once this transaction has committed."""
    await tx.execute(NOTIFY)


async def place(tx: Connection, roots: Sequence[bytes], block_number: int, block_hash: bytes) -> None:
    """Note that roots are anchored, as read in that final block."""
    await tx.execute(PLACE, list(roots), block_number, block_hash, int(AnchorKind.CHECKPOINT))


async def trouble(tx: Connection, root: bytes, why: str) -> None:
    """Note why a root will never be anchored."""
    await tx.execute(TROUBLE, root, why)


async def anchored(connection: Connection, roots: Sequence[bytes]) -> Mapping[bytes, Anchored]:
    """Those of the roots that are anchored, by root."""
    rows = await connection.fetch(ANCHORED, list(roots))
    return {
        row["root"]: Anchored(_request(row), row["raw_transaction"] or b"", row["block_number"], row["block_hash"]) for row in rows
    }


def _waiting(row: asyncpg.Record) -> Waiting:
    carried = None
    if row["attempt"]:
        carried = Order(row["attempt"], row["settled"], row["skip_code"], row["skip_detail"], row["rested"])
    return Waiting(_request(row), carried, row["requested_at"])


def _request(row: asyncpg.Record) -> AnchorRequest:
    return AnchorRequest(AnchorKind(row["kind"]), row["root"], row["tree_size"])
