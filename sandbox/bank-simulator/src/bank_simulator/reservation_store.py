"""Every SQL statement about reservations and returns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from bank_simulator.database import Connection


class ReservationState(StrEnum):
    """Where a reservation stands. Only RESERVED goes anywhere."""

    TOMBSTONED = "TOMBSTONED"
    REJECTED = "REJECTED"
    RESERVED = "RESERVED"
    PAID = "PAID"
    DELETED = "DELETED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation as the bank knows it. A tombstone has nothing but its UETR, counterparty and state."""

    #: UETR of the payment that it is for.
    uetr: UUID
    counterparty: str
    state: ReservationState
    reason: str | None
    message_id: str
    account_id: str
    amount: int
    currency: str
    scale: int
    hold_until: datetime | None
    receipt_message: int | None


_FIND = """
-- What is known of reservations.
select * from reservations where uetr = any ($1::uuid[])
"""

_ADD = """
-- A reservation that was judged.
insert into reservations (uetr, counterparty, state, reason, message_id, account_id, amount, currency, scale, hold_until, receipt_message)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

_ADD_TOMBSTONE = """
-- A reservation that will never be.
insert into reservations (uetr, counterparty, state) values ($1, $2, 'TOMBSTONED')
"""

_END = """
-- A reservation ends.
update reservations set state = $2, reason = $3 where uetr = $1 and state = 'RESERVED'
"""

_SET_RECEIPT = """
-- What was last said about a reservation.
update reservations set receipt_message = $2 where uetr = $1
"""

_DUE = """
-- Reservations whose time is over.
select uetr from reservations where state = 'RESERVED' and hold_until <= clock_timestamp() order by hold_until limit $1
"""

_ADD_RETURNED = """
-- More of a settled payment came back.
update payments set returned = returned + $2 where uetr = $1
"""

_SHOW = """
-- Reservations, newest first.
select uetr, counterparty, state, reason, message_id, account_id, amount, currency, scale, hold_until, created_at, changed_at
from reservations where $1::uuid is null or uetr = $1 order by created_at desc, uetr limit $2
"""


async def find(tx: Connection, uetrs: Collection[UUID]) -> dict[UUID, Reservation]:
    """What is known of the reservations for payments, by UETR."""
    rows = await tx.fetch(_FIND, list(uetrs)) if uetrs else ()
    return {
        row["uetr"]: Reservation(
            row["uetr"], row["counterparty"], ReservationState(row["state"]), row["reason"], row["message_id"] or "",
            row["account_id"] or "", row["amount"] or 0, row["currency"] or "", row["scale"] or 0, row["hold_until"],
            row["receipt_message"],
        )
        for row in rows
    }  # fmt: skip


async def add(tx: Connection, made: Reservation) -> None:
    """Keep a reservation that was judged."""
    await tx.execute(
        _ADD, made.uetr, made.counterparty, made.state, made.reason, made.message_id, made.account_id, made.amount, made.currency,
        made.scale, made.hold_until, made.receipt_message,
    )  # fmt: skip


async def add_tombstone(tx: Connection, counterparty: str, uetr: UUID) -> None:
    """A reservation for this payment will never be taken."""
    await tx.execute(_ADD_TOMBSTONE, uetr, counterparty)


async def end(tx: Connection, uetr: UUID, state: ReservationState, *, reason: str | None = None) -> None:
    """A reservation ends in this state."""
    if await tx.execute(_END, uetr, state, reason) != "UPDATE 1":
        raise AssertionError("the reservation is locked and stood")


async def set_receipt(tx: Connection, uetr: UUID, message: int) -> None:
    """Remember what was last said about a reservation."""
    await tx.execute(_SET_RECEIPT, uetr, message)


async def due(tx: Connection, limit: int) -> list[UUID]:
    """Reservations whose time is over."""
    return [row["uetr"] for row in await tx.fetch(_DUE, limit)]


async def add_returned(tx: Connection, uetr: UUID, amount: int) -> None:
    """Note that money of a settled payment came back."""
    await tx.execute(_ADD_RETURNED, uetr, amount)


async def show(tx: Connection, uetr: UUID | None, limit: int) -> list[dict[str, Any]]:
    """Reservations and tombstones."""
    return [dict(row) for row in await tx.fetch(_SHOW, uetr, limit)]
