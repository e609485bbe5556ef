"""Every statement that the bank-gateway runs on its own tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from bank_gateway.inquiries import asked_again
from bank_gateway.messages import Kind, References
from bank_gateway.operations import Known
from bank_gateway.profiles import PROFILES, Profile, ProfileName
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId, sha256
from lockstep_kit.values import dataclass

#: Notes payments when their legs are first heard of; a second time changes nothing. What the bank said of them while nobody knew them, as after a restore,
#: is no open matter any more, since the bank is told or asked about them now.
INSERT_PAYMENTS: Final = """
with noted as (
    insert into bank_payment (plan_id, leg_id, uetr, end_to_end_id, status, asked_at, settlement_date, profile)
    select plan_id, leg_id, uetr, end_to_end_id, '{}'::jsonb, asked_at, settlement_date, $7::text
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::date[])
        as new (plan_id, leg_id, uetr, end_to_end_id, asked_at, settlement_date)
    on conflict do nothing returning uetr
)
update bank_matter set closed_at = clock_timestamp(), closing = 'the payment became known'
from noted where bank_matter.uetr = noted.uetr and bank_matter.kind = 'UNKNOWN_PAYMENT' and bank_matter.closed_at is null
"""

#: Payments by their UETRs, locked, with the first open matters of their legs.
LOCK_PAYMENTS: Final = """
select uetr, status, asked_at, settlement_date, profile, coalesce((
    select sentence from bank_matter as matter
    where matter.plan_id = payment.plan_id and matter.leg_id = payment.leg_id and matter.closed_at is null order by matter.id limit 1
), '') as matter
from bank_payment as payment where uetr = any($1::text[]) order by uetr for update of payment
"""

#: The legs of payments.
LEGS_OF: Final = "select uetr, plan_id, leg_id from bank_payment where uetr = any($1::text[]) order by uetr"

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

#: The payments that a message of ours carried, or was about.
PAYMENTS_OF_MESSAGE: Final = """
select distinct uetr from bank_message where direction = 'OUT' and message_id = $1 and kind = any($2::text[]) and uetr is not null order by uetr
"""

#: Payments of legs.
PAYMENTS: Final = """
select payment.plan_id, payment.leg_id, payment.status, payment.profile from bank_payment as payment
join unnest($1::text[], $2::text[]) as asked (plan_id, leg_id) using (plan_id, leg_id)
"""

#: What is known of payments now.
UPDATE_PAYMENTS: Final = """
update bank_payment as payment set status = now.status::jsonb
from unnest($1::text[], $2::text[], $3::text[]) as now (plan_id, leg_id, status)
where payment.plan_id = now.plan_id and payment.leg_id = now.leg_id
"""

#: Keeps messages as they go, or went, over the wire.
INSERT_MESSAGES: Final = """
insert into bank_message (direction, message_id, kind, uetr, octets, sha256)
select direction, message_id, kind, uetr, octets, sha256
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])
    with ordinality as new (direction, message_id, kind, uetr, octets, sha256, place)
order by place
on conflict on constraint bank_message_once do nothing
"""

#: Place up to which the mailbox was stored.
CURSOR: Final = "select cursor from bank_mailbox where counterparty = $1"

#: Moves that place on, and keeps other replicas from the mailbox until the end of the transaction; nothing comes back when it is another place meanwhile.
MOVE_CURSOR: Final = """
insert into bank_mailbox (counterparty, cursor)
select $1::text, $3::bigint where $2::bigint = 0 or exists (select from bank_mailbox where counterparty = $1)
on conflict (counterparty) do update set cursor = excluded.cursor where bank_mailbox.cursor = $2 and $2 < excluded.cursor
returning cursor
"""

#: Keeps what could not be read, for a person.
QUARANTINE: Final = """
insert into bank_quarantine (counterparty, cursor, octets, field, rule) values ($1, $2, $3, $4, $5)
on conflict on constraint bank_quarantine_once do nothing
"""

#: Payments whose legs owe an answer, and that are to be asked about now.
TO_INQUIRE: Final = asked_again("bank_payment")

#: The key of a leg that is being executed and may still begin, kept so until the end of the transaction; nothing while somebody else is working on it.
KEY_OF_EXECUTING: Final = """
select key from participant_leg
where plan_id = $1 and leg_id = $2 and phase = 'COMMITTING' and (not_after is null or not_after > clock_timestamp()) for share skip locked
"""

#: The database's clock.
NOW: Final = "select clock_timestamp()"

#: What may be known of a payment.
_SAID: Final = tuple(each.name for each in fields(Known))


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment that is noted."""

    #: Plan and leg.
    leg: tuple[PlanId, LegId]
    #: Its names.
    names: References
    #: When it is first asked for.
    asked_at: datetime
    #: Settlement date.
    settlement_date: date


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message as it is kept."""

    #: IN or OUT.
    direction: str
    #: Its name.
    message_id: str
    #: Its definition.
    kind: str
    #: The one payment that it is about; None of one that is about several, or none.
    uetr: str | None
    #: The message.
    octets: bytes


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """A payment as it is kept."""

    #: What the bank has said.
    known: Known
    #: When it was first asked for.
    asked_at: datetime
    #: Settlement date; None of one that was noted by an earlier version without any.
    settlement_date: date | None
    #: How it is promised and made, whatever the settings say by now.
    profile: Profile
    #: First open matter of the leg, or "".
    matter: str


class MatterKind(StrEnum):
    """What a person must look into, whatever becomes of any leg."""

    #: The bank holds or moved money for a payment that is not known here.
    UNKNOWN_PAYMENT = "UNKNOWN_PAYMENT"
    #: A booking is not what the payment says.
    BOOKING_DIFFERS = "BOOKING_DIFFERS"
    #: Money of a payment came back, whole or in part, or is said to.
    PAYMENT_RETURNED = "PAYMENT_RETURNED"


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


async def insert_payments(tx: Connection, payments: Sequence[NewPayment], profile: Profile) -> None:
    """Note payments that are not known, with their settlement dates and their profile, which never change."""
    if payments:
        await tx.execute(
            INSERT_PAYMENTS,
            [each.leg[0] for each in payments],
            [each.leg[1] for each in payments],
            [each.names.uetr for each in payments],
            [each.names.end_to_end_id for each in payments],
            [each.asked_at for each in payments],
            [each.settlement_date for each in payments],
            profile.name.value,
        )


async def lock_payments(tx: Connection, uetrs: Sequence[str]) -> dict[str, PaymentRow]:
    """Payments by their UETRs, locked; those that are not ours are left out."""
    if not uetrs:
        return {}
    return {
        row["uetr"]: PaymentRow(
            Known(**json.loads(row["status"])),
            row["asked_at"],
            row["settlement_date"],
            PROFILES[ProfileName(row["profile"])],
            row["matter"],
        )
        for row in await tx.fetch(LOCK_PAYMENTS, uetrs)
    }


async def legs_of(tx: Connection, uetrs: Collection[str]) -> dict[str, tuple[PlanId, LegId]]:
    """The legs of payments by their UETRs; payments that are not ours are left out."""
    rows = await tx.fetch(LEGS_OF, sorted(uetrs)) if uetrs else ()
    return {row["uetr"]: (PlanId(row["plan_id"]), LegId(row["leg_id"])) for row in rows}


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


async def payments_of_message(tx: Connection, message_id: str, kinds: Sequence[Kind]) -> list[str]:
    """UETRs of the payments that a message of ours, of one of these kinds, carried or was about."""
    rows = await tx.fetch(PAYMENTS_OF_MESSAGE, message_id, [kind.value for kind in kinds])
    return [row["uetr"] for row in rows]


async def payments(tx: Connection, legs: Sequence[tuple[PlanId, LegId]]) -> dict[tuple[PlanId, LegId], tuple[Known, Profile]]:
    """What is known of legs' payments, and how they are promised and made."""
    rows = await tx.fetch(PAYMENTS, [plan_id for plan_id, _ in legs], [leg_id for _, leg_id in legs]) if legs else ()
    return {
        (PlanId(row["plan_id"]), LegId(row["leg_id"])): (Known(**json.loads(row["status"])), PROFILES[ProfileName(row["profile"])])
        for row in rows
    }


async def update_payments(tx: Connection, known: Mapping[tuple[PlanId, LegId], Known]) -> None:
    """Keep what is known of legs' payments."""
    if known:
        # What was never said is not written, so that a process of an earlier version reads what concerns it.
        said = [json.dumps({name: value for name in _SAID if (value := getattr(each, name))}) for each in known.values()]
        await tx.execute(UPDATE_PAYMENTS, [plan_id for plan_id, _ in known], [leg_id for _, leg_id in known], said)


async def keep_messages(tx: Connection, messages: Sequence[KeptMessage]) -> None:
    """Keep messages byte for byte, in their order."""
    if not messages:
        return
    await tx.execute(
        INSERT_MESSAGES,
        [each.direction for each in messages],
        [each.message_id for each in messages],
        [each.kind for each in messages],
        [each.uetr for each in messages],
        [each.octets for each in messages],
        [sha256(each.octets) for each in messages],
    )


async def cursor(tx: Connection, counterparty: str) -> int:
    """Place up to which the mailbox was stored."""
    found: int | None = await tx.fetchval(CURSOR, counterparty)
    return found or 0


async def move_cursor(tx: Connection, counterparty: str, after: int, cursor: int) -> bool:
    """Move the mailbox's place on from where it was read, and lock it; False when it is not there any more."""
    return await tx.fetchval(MOVE_CURSOR, counterparty, after, cursor) is not None


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
