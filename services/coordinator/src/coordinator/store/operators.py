"""Escalations, what operators sign about them, and dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from coordinator.convert import stored
from coordinator.dossier import FiledTicket
from coordinator.model import Mandate, Ticket
from coordinator.operators import OperatorRecord
from coordinator.store import escalation_documents
from coordinator.store.escalation_documents import KeptDocument
from lockstep_kit.canonical import time_text
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, permission_denied
from lockstep_kit.ids import ActorId, Digest, PlanId, derived
from lockstep_kit.values import dataclass

#: Adds escalations.
INSERT_TICKETS: Final = """
insert into escalation (escalation_id, plan_id, ordinal, reason, leg_id, detail, raised_at)
select * from unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
"""

#: Closes escalations, each by the resolution that says that its matter is over.
CLOSE_TICKETS: Final = """
update escalation set resolved_at = $3, resolution_digest = closed.digest
from unnest($1::text[], $2::bytea[]) as closed (escalation_id, digest) where escalation.escalation_id = closed.escalation_id
"""

#: Plan of an escalation.
PLAN_OF: Final = "select plan_id from escalation where escalation_id = $1"

#: Ids of escalations before a place, newest first.
PAGE: Final = """
select escalation_id, plan_id, raised_at from escalation
where ($1::timestamptz is null or (raised_at, escalation_id) < ($1, $2)) and ($3::boolean is null or (resolved_at is null) = $3)
  and ($4 = '' or plan_id = $4) and ($5 = '' or reason = $5)
order by raised_at desc, escalation_id desc limit $6
"""

#: What two operators signed last to have plans unwound.
READ_UNWINDS: Final = """
select distinct on (plan_id) plan_id, first_actor, first_signed, second_actor, second_signed from resolution
where plan_id = any($1) and verb = 'REVERSE' order by plan_id, effective_at desc
"""

#: Keeps an operator's signature; a key's nonce counts once.
INSERT_SIGNATURE: Final = """
insert into resolution_signature (key_id, nonce, escalation_id, digest, plan_id, actor_id, signed, signed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
"""

#: Operators' signatures about escalations, in the order of signing.
READ_SIGNATURES: Final = """
select escalation_id, digest, actor_id, signed, signed_at from resolution_signature where escalation_id = any($1)
order by escalation_id, signed_at
"""

#: Keeps what took effect.
INSERT_RESOLUTION: Final = """
insert into resolution (escalation_id, digest, plan_id, verb, leg_id, first_actor, first_signed, second_actor, second_signed, effective_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""

#: What took effect about escalations.
READ_EFFECTS: Final = "select escalation_id, digest, effective_at from resolution where escalation_id = any($1)"

#: Ids of plans behind a place of which something may be at risk.
AT_RISK: Final = """
select plan_id from plan
where plan_id > $1 and (state in ('EXECUTING', 'ABORTED', 'PARTIALLY_EXECUTED', 'UNWIND_PENDING')
    or exists (select from escalation where escalation.plan_id = plan.plan_id and resolved_at is null))
order by plan_id limit $2
"""

#: The database's clock.
CLOCK: Final = "select clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Papers:
    """What operators signed about one escalation."""

    #: Their signatures by the digest of what was signed, in the order of signing.
    signatures: Mapping[Digest, tuple[OperatorRecord, ...]]
    #: What took effect, and when.
    effects: Mapping[Digest, datetime]
    #: What is said of it on chain, first of its opening.
    documents: tuple[KeptDocument, ...] = ()


def filed(plan_id: PlanId, known: int, tickets: Sequence[Ticket]) -> tuple[FiledTicket, ...]:
    """New escalations of a plan that has `known` already.

    Their time is part of their ids: after a restore, another escalation in the place of one that was lost is another one, on chain too.
    """
    return tuple(
        FiledTicket(derived("escalation", plan_id, str(known + place), time_text(ticket.at)), ticket, None)
        for place, ticket in enumerate(tickets, start=1)
    )


async def insert_tickets(tx: Connection, tickets: Sequence[tuple[PlanId, int, FiledTicket]]) -> None:
    """Add escalations, each with its place in its plan."""
    if not tickets:
        return
    await tx.execute(
        INSERT_TICKETS,
        [each.escalation_id for _, _, each in tickets],
        [plan_id for plan_id, _, _ in tickets],
        [ordinal for _, ordinal, _ in tickets],
        [each.ticket.reason for _, _, each in tickets],
        [each.ticket.leg_id for _, _, each in tickets],
        [each.ticket.detail for _, _, each in tickets],
        [each.ticket.at for _, _, each in tickets],
    )


async def close_tickets(tx: Connection, closed: Mapping[str, Digest], now: datetime) -> None:
    """Close escalations, each by its resolution."""
    if closed:
        await tx.execute(CLOSE_TICKETS, list(closed), list(closed.values()), now)


async def plan_of(connection: Connection, escalation_id: str) -> PlanId | None:
    """Plan of an escalation; None where there is no such."""
    found: str | None = await connection.fetchval(PLAN_OF, escalation_id)
    return None if found is None else PlanId(found)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which escalations."""

    #: True: open ones; False: closed ones; None: all.
    open: bool | None
    #: Only this plan's, or "".
    plan_id: str
    #: Only with this reason, or "".
    reason: str


async def page(
    connection: Connection, before: tuple[datetime, str] | None, wanted: Wanted, limit: int
) -> list[tuple[str, PlanId, datetime]]:
    """Ids, plans and times of escalations before a place, newest first."""
    moment, escalation_id = before or (None, "")
    rows = await connection.fetch(PAGE, moment, escalation_id, wanted.open, wanted.plan_id, wanted.reason, limit)
    return [(row["escalation_id"], PlanId(row["plan_id"]), row["raised_at"]) for row in rows]


async def unwinds(connection: Connection, plans: Iterable[str]) -> dict[PlanId, Mandate]:
    """What two operators signed last to have plans unwound."""
    return {
        PlanId(row["plan_id"]): stored.mandate_of(
            row["first_signed"], row["second_signed"], row["first_actor"], row["second_actor"]
        )
        for row in await connection.fetch(READ_UNWINDS, sorted(plans))
    }


async def insert_signature(tx: Connection, plan_id: PlanId, record: OperatorRecord) -> None:
    """Keep an operator's signature.

    Raises:
        asyncpg.UniqueViolationError: `resolution_signature_nonce_key`; the key has signed with this nonce before.
    """
    statement = record.signed.statement
    await tx.execute(
        INSERT_SIGNATURE,
        record.signed.signature.key_id,
        statement.nonce,
        statement.resolution.escalation_id,
        statement.resolution.digest,
        plan_id,
        record.actor,
        stored.resolution_octets(record.signed),
        record.at,
    )


async def insert_resolution(tx: Connection, plan_id: PlanId, mandate: Mandate, now: datetime) -> None:
    """Keep what two operators' signatures brought about."""
    resolution, (first, second) = mandate.resolution, mandate.signatures
    await tx.execute(
        INSERT_RESOLUTION,
        resolution.escalation_id,
        resolution.digest,
        plan_id,
        resolution.verb.value,
        resolution.leg_id,
        mandate.actors[0],
        stored.resolution_octets(first),
        mandate.actors[1],
        stored.resolution_octets(second),
        now,
    )


async def papers(connection: Connection, escalations: Sequence[str]) -> dict[str, Papers]:
    """What operators signed about escalations."""
    signatures: dict[str, dict[Digest, list[OperatorRecord]]] = {each: {} for each in escalations}
    effects: dict[str, dict[Digest, datetime]] = {each: {} for each in escalations}
    for row in await connection.fetch(READ_SIGNATURES, list(escalations)):
        record = OperatorRecord(stored.resolution_of(row["signed"]), ActorId(row["actor_id"]), row["signed_at"])
        signatures[row["escalation_id"]].setdefault(Digest(row["digest"]), []).append(record)
    for row in await connection.fetch(READ_EFFECTS, list(escalations)):
        effects[row["escalation_id"]][Digest(row["digest"])] = row["effective_at"]
    documents = await escalation_documents.read(connection, escalations)
    return {
        each: Papers({digest: tuple(records) for digest, records in signatures[each].items()}, effects[each], documents[each])
        for each in escalations
    }


async def at_risk(connection: Connection, after: str, limit: int) -> list[PlanId]:
    """Ids of plans behind a place of which something may be at risk."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(AT_RISK, after, limit)]


async def clock(connection: Connection) -> datetime:
    """The database's clock."""
    moment: datetime = await connection.fetchval(CLOCK)
    return moment


def nonce_reused(error: asyncpg.UniqueViolationError) -> LockstepError:
    """The refusal that a violated `resolution_signature_nonce_key` is; any other violation is raised on."""
    if error.constraint_name != "resolution_signature_nonce_key":
        raise error
    return permission_denied("RESOLUTION_NONCE_REUSED", "the key has signed with this nonce before")
