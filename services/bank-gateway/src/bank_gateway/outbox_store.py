"""Every statement on what is queued for the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from typing import Final

from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.moments import passed
from lockstep_kit.values import dataclass

#: Queues things for the bank, in their order; the same again is the same. Keys of those that were not queued before come back.
ENQUEUE: Final = """
insert into bank_outbox (plan_id, leg_id, uetr, action, idempotency_key, octets, traceparent)
select plan_id, leg_id, uetr, action, idempotency_key, octets, traceparent
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[])
    with ordinality as new (plan_id, leg_id, uetr, action, idempotency_key, octets, traceparent, place)
order by place
on conflict on constraint bank_outbox_key do nothing returning idempotency_key
"""

#: Whether something may be due; looked at without holding anybody up.
DUE: Final = (
    f"select exists (select from bank_outbox where state in ('QUEUED', 'SENT') and {passed('due_at', put_off_max='$1')}) as due"
)

#: Lets one replica claim at a time, so that what is in flight is counted right.
CLAIM_TURN: Final = "select pg_advisory_xact_lock(7_301_105) is null as taken"

#: Takes what is due, oldest first, one of each payment: what comes later about a payment waits for what comes before. Tried is tried, whatever
#: becomes of it, so it is SENT before it is sent; due_at keeps other replicas away meanwhile. What was tried before goes before what is new, and no
#: more is new than brings what is in flight to its limit: SENT is in flight, since nobody knows whether the bank has it.
CLAIM: Final = f"""
with again as (
    select id from bank_outbox as mine
    where state = 'SENT' and {passed("due_at", put_off_max="$3")}
      and not exists (
        select from bank_outbox as earlier
        where earlier.uetr = mine.uetr and earlier.id < mine.id and earlier.state in ('QUEUED', 'SENT'))
    order by id limit $1 for update skip locked
), fresh as (
    select id from bank_outbox as mine
    where state = 'QUEUED' and {passed("due_at", put_off_max="$3")}
      and not exists (
        select from bank_outbox as earlier
        where earlier.uetr = mine.uetr and earlier.id < mine.id and earlier.state in ('QUEUED', 'SENT'))
    order by id limit least(
        $1 - (select count(*) from again), greatest($4::bigint - (select count(*) from bank_outbox where state = 'SENT'), 0))
    for update skip locked
)
update bank_outbox set state = 'SENT', attempts = attempts + 1, due_at = clock_timestamp() + $2
where id in (select id from again union all select id from fresh)
returning id, plan_id, leg_id, uetr, action, idempotency_key, octets, attempts, traceparent
"""

#: The bank has them.
MARK_ACKED: Final = "update bank_outbox set state = 'ACKED' where id = any($1::bigint[]) and state = 'SENT'"

#: The bank will never take it; nothing comes back when another attempt has ended already.
MARK_FAILED: Final = "update bank_outbox set state = 'FAILED', failure = $2 where id = $1 and state = 'SENT' returning id"

#: Nobody knows: again, later.
PUT_OFF: Final = """
update bank_outbox as message set due_at = clock_timestamp() + again.delay
from unnest($1::bigint[], $2::interval[]) as again (id, delay) where message.id = again.id and message.state = 'SENT'
"""

#: Nothing is waited for any more: the bank has it, and its leg has come to its end.
SETTLE: Final = """
update bank_outbox set state = 'SETTLED'
where id in (
    select message.id from bank_outbox as message join participant_leg as leg using (plan_id, leg_id)
    where message.state = 'ACKED' and leg.phase in ('REFUSED', 'COMMITTED', 'RELEASED', 'REVERSING', 'REVERSED')
    order by message.id limit $1 for update of message skip locked
)
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """Something that is to go to the bank."""

    #: Plan and leg.
    leg: tuple[PlanId, LegId]
    #: The leg's payment.
    uetr: str
    #: SEND or RELEASE.
    action: str
    #: Key by which the bank knows a repeat.
    idempotency_key: str
    #: Message, or key of the leg.
    octets: bytes = field(repr=False)
    #: Trace of whoever caused it.
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """Something for the bank."""

    #: Row.
    id: int
    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: Its payment.
    uetr: str
    #: SEND or RELEASE.
    action: str
    #: Key by which the bank knows a repeat.
    idempotency_key: str
    #: Message, or key of the leg.
    octets: bytes
    #: Attempts so far, this one included.
    attempts: int
    #: Trace of whoever caused it.
    traceparent: str | None


async def enqueue(tx: Connection, queued: Sequence[Queued]) -> frozenset[str]:
    """Queue things for the bank; keys of those that were not queued before."""
    if not queued:
        return frozenset()
    rows = await tx.fetch(
        ENQUEUE,
        [each.leg[0] for each in queued],
        [each.leg[1] for each in queued],
        [each.uetr for each in queued],
        [each.action for each in queued],
        [each.idempotency_key for each in queued],
        [each.octets for each in queued],
        [each.traceparent for each in queued],
    )
    return frozenset(row["idempotency_key"] for row in rows)


async def is_due(connection: Connection, wait_max: timedelta) -> bool:
    """Whether something may be due; `wait_max` is the longest time that anything is put off for."""
    return bool(await connection.fetchval(DUE, wait_max))


async def claim(tx: Connection, limit: int, lease: timedelta, wait_max: timedelta, in_flight_max: int) -> list[Claimed]:
    """What is due, marked as tried; `wait_max` is the longest time that anything is put off for."""
    await tx.execute(CLAIM_TURN)
    rows = await tx.fetch(CLAIM, limit, lease, wait_max, in_flight_max)
    return sorted((Claimed(**dict(row)) for row in rows), key=lambda each: each.id)


async def mark_acked(tx: Connection, rows: Sequence[int]) -> None:
    """Note that the bank has messages."""
    if rows:
        await tx.execute(MARK_ACKED, rows)


async def put_off(tx: Connection, delays: Mapping[int, timedelta]) -> None:
    """Try messages again after a delay; what has ended meanwhile is left alone."""
    if delays:
        await tx.execute(PUT_OFF, list(delays), list(delays.values()))


async def mark_failed(tx: Connection, row: int, why: str) -> bool:
    """Note that the bank will never take it; False when another attempt has ended already."""
    return await tx.fetchval(MARK_FAILED, row, why) is not None
