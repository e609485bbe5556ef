"""Every statement that the bank-gateway runs on its own tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from bank_gateway.messages import Kind, References
from bank_gateway.operations import Known
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId, sha256
from lockstep_kit.moments import passed

#: Notes a payment when its leg is first heard of; a second time changes nothing. What the bank said of it while nobody knew it, as after a restore, is
#: no open matter any more, since the bank is told or asked about it now.
INSERT_PAYMENT: Final = """
with noted as (
    insert into bank_payment (plan_id, leg_id, uetr, end_to_end_id, status, asked_at) values ($1, $2, $3, $4, '{}', $5)
    on conflict do nothing returning uetr
)
update bank_matter set closed_at = clock_timestamp(), closing = 'the payment became known'
from noted where bank_matter.uetr = noted.uetr and bank_matter.kind = 'UNKNOWN_PAYMENT' and bank_matter.closed_at is null
"""

#: A payment by its UETR, locked, with the first open matter of its leg.
LOCK_PAYMENT: Final = """
select plan_id, leg_id, status, asked_at, coalesce((
    select sentence from bank_matter as matter
    where matter.plan_id = payment.plan_id and matter.leg_id = payment.leg_id and matter.closed_at is null order by matter.id limit 1
), '') as matter
from bank_payment as payment where uetr = $1 for update of payment
"""

#: The leg of a payment.
LEG_OF: Final = "select plan_id, leg_id from bank_payment where uetr = $1"

#: The leg of a payment that has an end-to-end reference.
LEG_OF_REFERENCE: Final = "select plan_id, leg_id from bank_payment where end_to_end_id = $1"

#: Keeps an open matter, unless it is kept already; says whether it is new, and whether it is open.
ADD_MATTER: Final = """
with added as (
    insert into bank_matter (counterparty, message_id, message_sha256, place, kind, uetr, end_to_end_id, plan_id, leg_id, sentence)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict on constraint bank_matter_once do nothing returning id
)
select exists (select from added) as added, not exists (
    select from bank_matter where message_sha256 = $3 and place = $4 and closed_at is not null) as open
"""

#: How many matters are open.
COUNT_MATTERS: Final = "select count(*) from bank_matter where closed_at is null"

#: Open matters, oldest first.
OPEN_MATTERS: Final = """
select id, counterparty, message_id, kind, uetr, end_to_end_id, plan_id, leg_id, sentence, recorded_at
from bank_matter where closed_at is null order by id limit $1
"""

#: A person closes a matter; nothing comes back for one that is not open.
CLOSE_MATTER: Final = """
update bank_matter set closed_at = clock_timestamp(), closing = $2 where id = $1 and closed_at is null returning plan_id, leg_id, sentence
"""

#: The first open matter of a leg.
MATTER_OF_LEG: Final = """
select sentence from bank_matter where plan_id = $1 and leg_id = $2 and closed_at is null order by id limit 1
"""

#: The payments that a message of ours carried.
PAYMENTS_OF_MESSAGE: Final = """
select distinct uetr from bank_message where direction = 'OUT' and message_id = $1 and kind = $2 and uetr is not null order by uetr
"""

#: A payment of a leg.
PAYMENT: Final = "select status, asked_at from bank_payment where plan_id = $1 and leg_id = $2"

#: What is known of a payment now.
UPDATE_PAYMENT: Final = "update bank_payment set status = $3 where plan_id = $1 and leg_id = $2"

#: Keeps a message as it goes, or went, over the wire.
INSERT_MESSAGE: Final = """
insert into bank_message (direction, message_id, kind, uetr, octets, sha256) values ($1, $2, $3, $4, $5, $6)
on conflict on constraint bank_message_once do nothing
"""

#: Queues something for the bank; the same again is the same.
ENQUEUE: Final = """
insert into bank_outbox (plan_id, leg_id, uetr, action, idempotency_key, octets, traceparent)
values ($1, $2, $3, $4, $5, $6, $7) on conflict on constraint bank_outbox_key do nothing returning id
"""

#: Takes what is due, oldest first, one of each payment: what comes later about a payment waits for what comes before. Tried is tried, whatever
#: becomes of it, so it is SENT before it is sent; due_at keeps other replicas away meanwhile.
CLAIM: Final = f"""
update bank_outbox set state = 'SENT', attempts = attempts + 1, due_at = clock_timestamp() + $2
where id in (
    select id from bank_outbox as mine
    where state in ('QUEUED', 'SENT') and {passed("due_at", put_off_max="$3")}
      and not exists (
        select from bank_outbox as earlier
        where earlier.uetr = mine.uetr and earlier.id < mine.id and earlier.state in ('QUEUED', 'SENT'))
    order by id limit $1 for update skip locked
)
returning id, plan_id, leg_id, uetr, action, idempotency_key, octets, attempts, traceparent
"""

#: The bank has it.
MARK_ACKED: Final = "update bank_outbox set state = 'ACKED' where id = $1 and state = 'SENT'"

#: The bank will never take it; nothing comes back when another attempt has ended already.
MARK_FAILED: Final = "update bank_outbox set state = 'FAILED', failure = $2 where id = $1 and state = 'SENT' returning id"

#: Nobody knows: again, later.
RESCHEDULE: Final = "update bank_outbox set due_at = clock_timestamp() + $2 where id = $1 and state = 'SENT'"

#: Place up to which the mailbox was stored.
CURSOR: Final = "select cursor from bank_mailbox where counterparty = $1"

#: Moves that place, never back, and keeps other replicas from the mailbox until the end of the transaction; nothing comes back for a place that was
#: reached before.
MOVE_CURSOR: Final = """
insert into bank_mailbox (counterparty, cursor) values ($1, $2)
on conflict (counterparty) do update set cursor = excluded.cursor where bank_mailbox.cursor < excluded.cursor
returning cursor
"""

#: Keeps what could not be read, for a person.
QUARANTINE: Final = """
insert into bank_quarantine (counterparty, cursor, octets, field, rule) values ($1, $2, $3, $4, $5)
on conflict on constraint bank_quarantine_once do nothing
"""

#: Payments whose legs owe an answer though the bank has everything that we sent, and that were not asked about lately: after twice as long each time, up
#: to a longest wait, and counted anew in each phase. A clock that was set back makes it ask at once rather than wait. A payment that somebody is working
#: on is left to the next time, so that nobody waits for anybody in a circle.
TO_INQUIRE: Final = """
with overdue as (
    select payment.plan_id, payment.leg_id, leg.phase, leg.phase_since, counted.inquiries
    from bank_payment as payment
    join participant_leg as leg using (plan_id, leg_id)
    cross join lateral (
        select case when same then payment.inquiries else 0 end as inquiries,
            case when same then coalesce(payment.inquired_at, leg.phase_since) else leg.phase_since end as since
        from (select payment.inquiries_since is not distinct from leg.phase_since as same) as phase) as counted
    where leg.phase in ('PREPARING', 'COMMITTING', 'ABORTING')
      and clock_timestamp() not between counted.since
        and counted.since + least($1::interval * power(2, least(counted.inquiries, 20)), $2::interval)
      and not exists (
        select from bank_outbox where bank_outbox.uetr = payment.uetr and bank_outbox.state in ('QUEUED', 'SENT'))
    order by counted.since limit $3
    for update of payment skip locked
)
update bank_payment as payment
set inquiries = overdue.inquiries + 1, inquiries_since = overdue.phase_since, inquired_at = clock_timestamp()
from overdue
where payment.plan_id = overdue.plan_id and payment.leg_id = overdue.leg_id
returning payment.plan_id, payment.leg_id, overdue.phase, payment.inquiries
"""

#: The key of a leg that is being executed and may still begin, kept so until the end of the transaction; nothing while somebody else is working on it.
KEY_OF_EXECUTING: Final = """
select key from participant_leg
where plan_id = $1 and leg_id = $2 and phase = 'COMMITTING' and (not_after is null or not_after > clock_timestamp()) for share skip locked
"""

#: The database's clock.
NOW: Final = "select clock_timestamp()"


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


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment as it is kept."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: What the bank has said.
    known: Known
    #: When it was first asked for.
    asked_at: datetime
    #: First open matter of the leg, or "".
    matter: str


class MatterKind(StrEnum):
    """What a person must look into, whatever becomes of any leg."""

    #: The bank holds or moved money for a payment that is not known here.
    UNKNOWN_PAYMENT = "UNKNOWN_PAYMENT"
    #: A booking is not what the payment says.
    BOOKING_DIFFERS = "BOOKING_DIFFERS"


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that the bank said, and that a person must look into."""

    #: Bank.
    counterparty: str
    #: Message that said it.
    message_id: str
    #: SHA-256 of that message.
    message_sha256: bytes
    #: Which of its statements it is.
    place: int
    #: What it is.
    kind: MatterKind
    #: UETR that it names, or "".
    uetr: str
    #: End-to-end reference that it names, or "".
    end_to_end_id: str
    #: Leg whose references match, or None.
    leg: tuple[PlanId, LegId] | None
    #: One sentence.
    sentence: str


async def insert_payment(tx: Connection, plan_id: PlanId, leg_id: LegId, names: References, asked_at: datetime) -> None:
    """Note a payment, if it is not known."""
    await tx.execute(INSERT_PAYMENT, plan_id, leg_id, names.uetr, names.end_to_end_id, asked_at)


async def lock_payment(tx: Connection, uetr: str) -> PaymentRow | None:
    """A payment by its UETR, locked; None for one that is not ours."""
    row = await tx.fetchrow(LOCK_PAYMENT, uetr)
    if row is None:
        return None
    return PaymentRow(
        PlanId(row["plan_id"]), LegId(row["leg_id"]), Known(**json.loads(row["status"])), row["asked_at"], row["matter"]
    )


async def leg_of(tx: Connection, uetr: str) -> tuple[PlanId, LegId] | None:
    """The leg of a payment; None for one that is not ours."""
    row = await tx.fetchrow(LEG_OF, uetr)
    return None if row is None else (PlanId(row["plan_id"]), LegId(row["leg_id"]))


async def leg_of_reference(tx: Connection, end_to_end_id: str) -> tuple[PlanId, LegId] | None:
    """The leg whose payment has an end-to-end reference; None where there is none."""
    row = await tx.fetchrow(LEG_OF_REFERENCE, end_to_end_id)
    return None if row is None else (PlanId(row["plan_id"]), LegId(row["leg_id"]))


async def add_matter(tx: Connection, matter: Matter) -> tuple[bool, bool]:
    """Keep an open matter; returns whether it is new, and whether it is open, as it is not once a person closed it."""
    row = await tx.fetchrow(
        ADD_MATTER, matter.counterparty, matter.message_id, matter.message_sha256, matter.place, matter.kind.value, matter.uetr,
        matter.end_to_end_id, *(matter.leg or (None, None)), matter.sentence,
    )  # fmt: skip
    if row is None:
        raise AssertionError("the statement returns one row")
    return row["added"], row["open"]


async def count_matters(connection: Connection) -> int:
    """How many matters are open."""
    return int(await connection.fetchval(COUNT_MATTERS))


async def open_matters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Open matters, oldest first."""
    return [dict(row) for row in await connection.fetch(OPEN_MATTERS, limit)]


async def close_matter(tx: Connection, number: int, closing: str) -> tuple[tuple[PlanId, LegId] | None, str] | None:
    """Close a matter with what a person found; returns its leg and its sentence, or None when it is not open."""
    row = await tx.fetchrow(CLOSE_MATTER, number, closing)
    if row is None:
        return None
    return None if row["plan_id"] is None else (PlanId(row["plan_id"]), LegId(row["leg_id"])), row["sentence"]


async def matter_of_leg(tx: Connection, plan_id: PlanId, leg_id: LegId) -> str:
    """The first open matter of a leg, or ""."""
    return await tx.fetchval(MATTER_OF_LEG, plan_id, leg_id) or ""


async def payments_of_message(tx: Connection, message_id: str) -> list[str]:
    """UETRs of the payments that a message of ours carried."""
    rows = await tx.fetch(PAYMENTS_OF_MESSAGE, message_id, Kind.PAYMENT.value)
    return [row["uetr"] for row in rows]


async def payment(tx: Connection, plan_id: PlanId, leg_id: LegId) -> tuple[Known, datetime] | None:
    """What is known of a leg's payment, and when it was first asked for."""
    row = await tx.fetchrow(PAYMENT, plan_id, leg_id)
    return None if row is None else (Known(**json.loads(row["status"])), row["asked_at"])


async def update_payment(tx: Connection, plan_id: PlanId, leg_id: LegId, known: Known) -> None:
    """Keep what is known of a payment."""
    await tx.execute(UPDATE_PAYMENT, plan_id, leg_id, json.dumps(asdict(known)))


async def keep_message(tx: Connection, direction: str, message_id: str, kind: str, uetr: str | None, octets: bytes) -> None:
    """Keep a message byte for byte."""
    await tx.execute(INSERT_MESSAGE, direction, message_id, kind, uetr, octets, sha256(octets))


async def enqueue(
    tx: Connection, leg: tuple[PlanId, LegId], uetr: str, action: str, idempotency_key: str, octets: bytes, traceparent: str | None
) -> bool:
    """Queue something for the bank; False when it was queued before."""
    return await tx.fetchval(ENQUEUE, *leg, uetr, action, idempotency_key, octets, traceparent) is not None


async def claim(tx: Connection, limit: int, lease: timedelta, wait_max: timedelta) -> list[Claimed]:
    """What is due, marked as tried; `wait_max` is the longest time that anything is put off for."""
    rows = await tx.fetch(CLAIM, limit, lease, wait_max)
    return sorted((Claimed(**dict(row)) for row in rows), key=lambda each: each.id)


async def cursor(tx: Connection, counterparty: str) -> int:
    """Place up to which the mailbox was stored."""
    found: int | None = await tx.fetchval(CURSOR, counterparty)
    return found or 0


async def mark_failed(tx: Connection, row: int, why: str) -> bool:
    """Note that the bank will never take it; False when another attempt has ended already."""
    return await tx.fetchval(MARK_FAILED, row, why) is not None


async def move_cursor(tx: Connection, counterparty: str, cursor: int) -> bool:
    """Move the mailbox's place, and lock it; False when the place was reached before."""
    return await tx.fetchval(MOVE_CURSOR, counterparty, cursor) is not None


async def to_inquire(tx: Connection, after: timedelta, most: timedelta, limit: int) -> list[tuple[PlanId, LegId, Phase, int]]:
    """Legs whose payments are to be asked about, with their phase and how often it was asked in it, this time included."""
    rows = await tx.fetch(TO_INQUIRE, after, most, limit)
    return [(PlanId(row["plan_id"]), LegId(row["leg_id"]), Phase(row["phase"]), row["inquiries"]) for row in rows]


async def key_of_executing(tx: Connection, plan_id: PlanId, leg_id: LegId) -> bytes | None:
    """The key of a leg that is being executed and stays so until the transaction ends; None where it may not begin any more, or somebody works on it."""
    key: bytes | None = await tx.fetchval(KEY_OF_EXECUTING, plan_id, leg_id)
    return key


async def now(tx: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = await tx.fetchval(NOW)
    return moment
