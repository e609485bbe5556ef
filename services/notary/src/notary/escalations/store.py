"""Every statement on `escalation_record`: what is said of escalations, on its way to the registry, and what shows that it stands there.

What is kept goes on chain, whatever crashes and however long the chain is away. Nothing is recorded before the block is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from lockstep_contracts.notary import EscalationKind, EscalationRecord
from lockstep_kit.db import Connection
from lockstep_kit.escalations import escalation_hash
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.values import dataclass
from notary.anchors.judging import Order
from notary.escalations.rules import Statement

#: Channel on which new statements, settled transactions and new entries are announced.
CHANNEL: Final = "escalation_record"

#: What is known of escalations.
KNOWN: Final = (
    "select escalation_id, kind, plan_id, plan_digest, document_hash from escalation_record where escalation_id = any($1)"
)

#: Keeps statements, and announces them; one that is known is left as it is.
KEEP: Final = """
with fresh as (
    insert into escalation_record (escalation_id, kind, plan_id, plan_digest, document_hash, record_key)
    select * from unnest($1::text[], $2::smallint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[])
        as said (escalation_id, kind, plan_id, plan_digest, document_hash, record_key)
    order by escalation_id, kind
    on conflict (escalation_id, kind) do nothing returning escalation_id
)
select pg_notify('escalation_record', '') from fresh limit 1
"""

#: What is said of a plan's escalations, in the order in which it was taken.
OF_PLAN: Final = """
select escalation_id, kind, plan_id, plan_digest, document_hash, recorded_at, trouble, raw_transaction, block_number, block_hash
from escalation_record where plan_id = $1 order by seq
"""

#: A statement, and its last transaction; after each that was of no use it rests twice as long, and ten minutes at the most.
_WAITING: Final = """
    seq, escalation_id, kind, plan_id, plan_digest, document_hash, attempt, settled, skip_code, skip_detail,
    ordered_at < clock_timestamp() - least(interval '10 minutes', interval '1 second' * power(2, least(attempt, 20) - 1)) as rested
"""

#: A page of the statements that no transaction carries now, in the order in which they were taken.
DUE: Final = f"""
select {_WAITING} from escalation_record
where block_hash is null and trouble = '' and (intent_key is null or settled) and seq > $1 order by seq limit $2
"""

#: The same rows again, locked, in one order; those that another replica has taken further are found changed.
LOCK: Final = f"select {_WAITING} from escalation_record where seq = any($1) and block_hash is null order by seq for update"

#: Notes which transaction carries statements now, in the transaction that queues it.
ORDER: Final = """
update escalation_record set attempt = attempt + 1, intent_key = $2, ordered_at = clock_timestamp(), settled = false, skip_code = '',
    skip_detail = ''
where seq = any($1)
"""

#: Notes that a transaction came to its end, and which of its statements it skipped; announces it.
SETTLE: Final = """
with told as (
    update escalation_record set settled = true, skip_code = coalesce(skip.code, $5), skip_detail = coalesce(skip.detail, $6)
    from escalation_record as mine
        left join unnest($2::bytea[], $3::text[], $4::text[]) as skip (record_key, code, detail) using (record_key)
    where mine.intent_key = $1 and escalation_record.seq = mine.seq and escalation_record.block_hash is null
    returning escalation_record.seq
)
select pg_notify('escalation_record', '') from told limit 1
"""

#: Notes what shows that statements stand on chain: the transaction of ours that carried them, with its bytes and its block, or else the block in which
#: they were found; announces it.
PLACE: Final = """
with placed as (
    update escalation_record set raw_transaction = ours.raw, block_number = coalesce(ours.block_number, $2),
        block_hash = coalesce(ours.block_hash, $3), placed_at = clock_timestamp()
    from escalation_record as mine left join lateral (
        select attempt.raw, sent.block_number, sent.block_hash
        from evm_transaction as sent join evm_attempt as attempt
            on attempt.transaction_id = sent.id and attempt.transaction_hash = sent.transaction_hash
        where sent.idempotency_key = mine.intent_key and sent.state = 'final' and mine.skip_code = ''
    ) as ours on true
    where mine.seq = any($1) and escalation_record.seq = mine.seq
    returning escalation_record.seq
)
select pg_notify('escalation_record', '') from placed limit 1
"""

#: Says in one sentence why a statement will never stand on chain.
TROUBLE: Final = "update escalation_record set trouble = $2 where seq = $1"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A statement that does not stand on chain yet."""

    #: Its place among all.
    seq: int
    #: What is said.
    statement: Statement
    #: The last transaction that carried it; None: none has.
    order: Order | None

    @property
    def place(self) -> tuple[int, bool]:
        """How far it has come."""
        return (self.order.attempt, self.order.settled) if self.order is not None else (0, False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A statement that is kept, and where it stands."""

    #: What is said.
    statement: Statement
    #: When it was taken.
    recorded_at: datetime
    #: Why it will never stand on chain, or "".
    trouble: str
    #: The signed transaction as it was sent; b"" where none of ours was needed, or it does not stand yet.
    raw_transaction: bytes
    #: The final block in which the registry holds it, number and hash; None until then.
    block: tuple[int, bytes] | None


def entry_of(statement: Statement) -> EscalationRecord:
    """A statement as the registry takes it."""
    escalation = escalation_hash(statement.escalation_id)
    return EscalationRecord(statement.plan_digest, escalation, statement.kind, statement.document_hash)


async def known(connection: Connection, escalations: Sequence[str]) -> list[Statement]:
    """What is known of escalations."""
    return [_statement(row) for row in await connection.fetch(KNOWN, list(escalations))]


async def keep(tx: Connection, statements: Sequence[Statement]) -> None:
    """Keep statements; where one of its kind is known, that stays."""
    await tx.execute(
        KEEP,
        [each.escalation_id for each in statements],
        [int(each.kind) for each in statements],
        [each.plan_id for each in statements],
        [each.plan_digest for each in statements],
        [each.document_hash for each in statements],
        [entry_of(each).key for each in statements],
    )


async def of_plan(connection: Connection, plan_id: PlanId) -> list[Kept]:
    """What is said of a plan's escalations, in the order in which it was taken."""
    return [
        Kept(
            _statement(row),
            row["recorded_at"],
            row["trouble"],
            row["raw_transaction"] or b"",
            None if row["block_hash"] is None else (row["block_number"], row["block_hash"]),
        )
        for row in await connection.fetch(OF_PLAN, plan_id)
    ]


async def due(connection: Connection, limit: int, after: int) -> list[Waiting]:
    """A page of the statements that are to be looked at, behind a place."""
    return [_waiting(row) for row in await connection.fetch(DUE, after, limit)]


async def lock(tx: Connection, places: Sequence[int]) -> list[Waiting]:
    """Statements that do not stand on chain yet, locked."""
    return [_waiting(row) for row in await tx.fetch(LOCK, list(places))]


async def order(tx: Connection, places: Sequence[int], intent_key: str) -> None:
    """Note which transaction carries statements now."""
    await tx.execute(ORDER, list(places), intent_key)


async def settle(tx: Connection, intent_key: str, skips: Sequence[tuple[bytes, str, str]], otherwise: tuple[str, str]) -> None:
    """Note that a transaction came to its end; `otherwise` is the code and text of what was not skipped by name."""
    columns = [key for key, _, _ in skips], [code for _, code, _ in skips], [detail for _, _, detail in skips]
    await tx.execute(SETTLE, intent_key, *columns, *otherwise)


async def place(tx: Connection, places: Sequence[int], block_number: int, block_hash: bytes) -> None:
    """Note that statements stand on chain, as read in that final block."""
    await tx.execute(PLACE, list(places), block_number, block_hash)


async def trouble(tx: Connection, place: int, why: str) -> None:
    """Note why a statement will never stand on chain."""
    await tx.execute(TROUBLE, place, why)


def _statement(row: asyncpg.Record) -> Statement:
    return Statement(
        PlanId(row["plan_id"]),
        Digest(row["plan_digest"]),
        row["escalation_id"],
        EscalationKind(row["kind"]),
        Digest(row["document_hash"]),
    )


def _waiting(row: asyncpg.Record) -> Waiting:
    carried = None
    if row["attempt"]:
        carried = Order(row["attempt"], row["settled"], row["skip_code"], row["skip_detail"], row["rested"])
    return Waiting(row["seq"], _statement(row), carried)
