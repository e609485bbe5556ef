"""Every statement that the bank-gateway runs on its table of undertakings."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from bank_gateway.inquiries import asked_again
from bank_gateway.instruments.operations import Known
from bank_gateway.instruments.values import Undertaking, uetr_of
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass

#: Notes an undertaking when its leg is first heard of, with its issuance, which is not sent yet; a second time changes nothing. What the bank said of it
#: while nobody knew it, as after a restore, is no open matter any more, since the bank is told or asked about it now.
INSERT: Final = """
with noted as (
    insert into bank_undertaking (plan_id, leg_id, uetr, reference, number, issuance_id, issuance, issuance_sha256, status, asked_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, '{}', $9) on conflict do nothing returning uetr
)
update bank_matter set closed_at = clock_timestamp(), closing = 'the undertaking became known'
from noted where bank_matter.uetr = noted.uetr and bank_matter.kind = 'UNKNOWN_PAYMENT' and bank_matter.closed_at is null
"""

#: The leg of an undertaking.
LEG_OF: Final = "select plan_id, leg_id from bank_undertaking where reference = $1"

#: What is known of a leg's undertaking, locked.
LOCK: Final = (
    "select issuance_id, issuance, issuance_sha256, status from bank_undertaking where plan_id = $1 and leg_id = $2 for update"
)

#: What is known of an undertaking now.
UPDATE: Final = "update bank_undertaking set status = $3 where plan_id = $1 and leg_id = $2"

#: A message that was queued under a key.
QUEUED: Final = "select octets, traceparent from bank_outbox where action = 'SEND' and idempotency_key = $1"

#: Undertakings whose legs owe an answer, and that are to be asked about now.
TO_INQUIRE: Final = asked_again("bank_undertaking")


@dataclass(frozen=True, slots=True)
class Issuance:
    """An undertaking's issuance as it was built."""

    #: Business message identifier.
    message_id: str
    #: The message.
    octets: bytes
    #: SHA-256 of its Document, canonicalised.
    sha256: bytes


@dataclass(frozen=True, slots=True)
class UndertakingRow:
    """An undertaking as it is kept."""

    #: Its issuance, or None where none was ever drawn up.
    issuance: Issuance | None
    #: What the bank has said.
    known: Known


async def insert(
    tx: Connection,
    leg: tuple[PlanId, LegId],
    undertaking: Undertaking,
    issuance: Issuance | None,
    asked_at: datetime,
) -> None:
    """Note an undertaking, if it is not known."""
    names = uetr_of(undertaking.reference), undertaking.reference, undertaking.number
    drawn = (None, None, None) if issuance is None else (issuance.message_id, issuance.octets, issuance.sha256)
    await tx.execute(INSERT, *leg, *names, *drawn, asked_at)


async def leg_of(tx: Connection, reference: str) -> tuple[PlanId, LegId] | None:
    """The leg of an undertaking; None for one that is not ours."""
    row = await tx.fetchrow(LEG_OF, reference)
    return None if row is None else (PlanId(row["plan_id"]), LegId(row["leg_id"]))


async def lock(tx: Connection, leg: tuple[PlanId, LegId]) -> UndertakingRow | None:
    """What is known of a leg's undertaking, locked; None where nothing is."""
    row = await tx.fetchrow(LOCK, *leg)
    if row is None:
        return None
    drawn = None if row["issuance"] is None else Issuance(row["issuance_id"], row["issuance"], row["issuance_sha256"])
    return UndertakingRow(drawn, Known(**json.loads(row["status"])))


async def update(tx: Connection, leg: tuple[PlanId, LegId], known: Known) -> None:
    """Keep what is known of an undertaking."""
    await tx.execute(UPDATE, *leg, json.dumps(asdict(known)))


async def queued(tx: Connection, key: str) -> tuple[bytes, str | None] | None:
    """A message that was queued under a key; None where none was."""
    row = await tx.fetchrow(QUEUED, key)
    return None if row is None else (row["octets"], row["traceparent"])


async def to_inquire(tx: Connection, after: timedelta, most: timedelta, limit: int) -> list[tuple[PlanId, LegId, Phase]]:
    """Legs whose undertakings are to be asked about, with their phase."""
    rows = await tx.fetch(TO_INQUIRE, after, most, limit)
    return [(PlanId(row["plan_id"]), LegId(row["leg_id"]), Phase(row["phase"])) for row in rows]
