"""Payments that are kept unsent until their legs are committed, and every statement on them.

A draft goes one way: kept, then sent or withdrawn, once; the database sees to it. So a payment whose leg was given up before it was sent never is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from bank_gateway.messages import Kind
from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId, sha256
from lockstep_kit.values import dataclass


class DraftState(StrEnum):
    """Where a draft stands."""

    KEPT = "KEPT"
    #: It was put into the outbox.
    SENT = "SENT"
    #: It is never sent.
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Draft:
    """A payment as it was built."""

    #: Where it stands.
    state: DraftState
    #: Name of the message.
    message_id: str
    #: Definition of the message.
    kind: Kind
    #: The message.
    octets: bytes


#: Keeps a payment unsent; a second time changes nothing.
KEEP: Final = """
insert into bank_draft (plan_id, leg_id, message_id, kind, octets, sha256) values ($1, $2, $3, $4, $5, $6) on conflict do nothing
"""

#: The payment that is kept for a leg, locked.
FIND: Final = "select state, message_id, kind, octets from bank_draft where plan_id = $1 and leg_id = $2 for update"

#: It is in the outbox, or never will be; nothing where it has gone one of these ways.
MOVE: Final = "update bank_draft set state = $3, moved_at = clock_timestamp() where plan_id = $1 and leg_id = $2 and state = 'KEPT'"

#: A message of ours as it went over the wire.
SENT_MESSAGE: Final = "select kind, octets from bank_message where direction = 'OUT' and message_id = $1 order by id limit 1"


async def keep(tx: Connection, leg: tuple[PlanId, LegId], message_id: str, kind: Kind, octets: bytes) -> None:
    """Keep a payment unsent."""
    await tx.execute(KEEP, *leg, message_id, kind.value, octets, sha256(octets))


async def find(tx: Connection, leg: tuple[PlanId, LegId]) -> Draft | None:
    """The payment that is kept for a leg, locked until the end of the transaction."""
    row = await tx.fetchrow(FIND, *leg)
    return None if row is None else Draft(DraftState(row["state"]), row["message_id"], Kind(row["kind"]), row["octets"])


async def move(tx: Connection, leg: tuple[PlanId, LegId], state: DraftState) -> None:
    """Note that a kept payment was sent, or never will be."""
    await tx.execute(MOVE, *leg, state.value)


async def sent_message(tx: Connection, message_id: str) -> tuple[Kind, bytes] | None:
    """A message of ours as it went over the wire first; None for one that never did."""
    row = await tx.fetchrow(SENT_MESSAGE, message_id)
    return None if row is None else (Kind(row["kind"]), row["octets"])
