"""Abort audit logs: what they are written from, and the logs themselves, written once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg

from coordinator.audit import AuditLog, Decided, Given, Heard, Papers
from coordinator.convert.audit import heard_of, tells_of_take_over
from coordinator.dossier import Dossier
from coordinator.model import Order
from coordinator.store.reading import transition
from lockstep_kit import leases
from lockstep_kit.db import Connection
from lockstep_kit.ids import ActorId, Digest, PlanId, sha256
from lockstep_kit.resolutions import Verb
from lockstep_kit.values import replace

#: Digests of plans' logs so far, in order.
EARLIER: Final = "select plan_id, digest from audit_log where plan_id = any($1) order by plan_id, ordinal"

#: Plans' histories, in order.
TRANSITIONS: Final = "select * from plan_transition where plan_id = any($1) order by plan_id, transition_no"

#: Plans' commands as they were last given.
COMMANDS: Final = """
select plan_id, leg_id, command, given_at, attempts, rejections, last_rejection from leg_command
where plan_id = any($1) order by plan_id, given_at
"""

#: What changed about plans, as watchers were told, in order.
EVENTS: Final = "select plan_id, event, event_at from plan_event where plan_id = any($1) order by sequence"

#: What operators decided about plans, in order.
RESOLUTIONS: Final = """
select plan_id, escalation_id, verb, leg_id, first_actor, second_actor, digest, effective_at from resolution
where plan_id = any($1) order by plan_id, effective_at
"""

#: Keeps a log; its bytes are those of its digest, or the row is refused.
INSERT: Final = """
insert into audit_log (plan_id, ordinal, digest, octets, written_at)
select plan_id, 1 + (select count(*) from audit_log where audit_log.plan_id = new.plan_id), digest, octets, $4
from unnest($1::text[], $2::bytea[], $3::bytea[]) as new (plan_id, digest, octets)
"""

#: Plans of this owner, or of nobody any more, whose log is still to be stored, with the last one written.
PENDING: Final = f"""
select distinct on (log.plan_id) log.plan_id, log.digest, log.octets, log.ordinal, log.written_at, plan.auditing_since, plan.traceparent
from plan
join audit_log as log on log.plan_id = plan.plan_id
left join lease on lease.resource_id = plan.plan_id
where plan.auditing_since is not null and (lease.owner is null or lease.owner = $1 or {leases.FREE})
order by log.plan_id, log.ordinal desc limit $2
"""

#: A plan's logs, in order.
LOGS: Final = "select ordinal, digest, octets, written_at from audit_log where plan_id = $1 order by ordinal"


async def papers(
    tx: Connection, dossiers: Sequence[Dossier], telling: Mapping[PlanId, Sequence[bytes]], now: datetime
) -> list[Papers]:
    """What plans' logs are written from, in the transaction that steps the plans: all rows but `telling`, the changes that it will tell watchers of."""
    ids = [each.plan_id for each in dossiers]
    earlier = _by_plan(await tx.fetch(EARLIER, ids))
    transitions = _by_plan(await tx.fetch(TRANSITIONS, ids))
    commands = _by_plan(await tx.fetch(COMMANDS, ids))
    events = _by_plan(await tx.fetch(EVENTS, ids))
    resolutions = _by_plan(await tx.fetch(RESOLUTIONS, ids))
    return [
        Papers(
            dossier=dossier,
            earlier=tuple(Digest(row["digest"]) for row in earlier[dossier.plan_id]),
            transitions=tuple(transition(row) for row in transitions[dossier.plan_id]),
            commands=tuple(_given(row) for row in commands[dossier.plan_id]),
            reports=_heard(events[dossier.plan_id], telling.get(dossier.plan_id, ()), now),
            resolutions=tuple(_decided(row) for row in resolutions[dossier.plan_id]),
            take_overs=sum(tells_of_take_over(row["event"]) for row in events[dossier.plan_id]),
            now=now,
        )
        for dossier in dossiers
    ]


def _by_plan(rows: Sequence[asyncpg.Record]) -> dict[str, list[asyncpg.Record]]:
    found: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row["plan_id"]].append(row)
    return found


def _given(row: asyncpg.Record) -> Given:
    order = Order(row["command"])
    return Given(row["leg_id"], order, row["given_at"], row["attempts"], row["rejections"], row["last_rejection"])


def _heard(rows: Sequence[asyncpg.Record], telling: Sequence[bytes], now: datetime) -> tuple[Heard, ...]:
    kept = [(row["event"], row["event_at"]) for row in rows]
    found = [heard_of(octets, at) for octets, at in (*kept, *((octets, now) for octets in telling))]
    return tuple(each for each in found if each is not None)


def _decided(row: asyncpg.Record) -> Decided:
    actors = (ActorId(row["first_actor"]), ActorId(row["second_actor"]))
    return Decided(row["escalation_id"], Verb(row["verb"]), row["leg_id"], actors, Digest(row["digest"]), row["effective_at"])


async def insert(tx: Connection, logs: Mapping[PlanId, bytes], now: datetime) -> None:
    """Keep plans' logs, each as its plan's last."""
    await tx.execute(INSERT, list(logs), [sha256(each) for each in logs.values()], list(logs.values()), now)


async def pending(connection: Connection, owner: str, limit: int) -> list[AuditLog]:
    """Logs that are still to be stored."""
    rows = await connection.fetch(PENDING, owner, limit)
    return [
        replace(_log(PlanId(row["plan_id"]), row), ordered_at=row["auditing_since"], traceparent=row["traceparent"]) for row in rows
    ]


async def logs(connection: Connection, plan_id: PlanId) -> list[AuditLog]:
    """A plan's logs, in order."""
    return [_log(plan_id, row) for row in await connection.fetch(LOGS, plan_id)]


def _log(plan_id: PlanId, row: asyncpg.Record) -> AuditLog:
    return AuditLog(plan_id, row["ordinal"], Digest(row["digest"]), row["octets"], row["written_at"])
