"""Notices: written once, on their way to webhooks, and those that were given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from coordinator.notices import Notice, NoticeKind, cloud_event
from coordinator.store.letters import DeadLetter
from coordinator.tables import NOTICE_OUTBOX
from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.outbox import Message, NewMessage
from lockstep_kit.values import dataclass

#: In the list of dead letters, the command of those that are notices.
NOTICE: Final = "NOTICE"

#: Keeps notices; what was noticed before is not noticed again.
INSERT: Final = """
insert into notice (notice_id, plan_id, kind, event, noticed_at)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::timestamptz[])
on conflict (notice_id) do nothing returning notice_id
"""

#: Messages to webhooks that are not configured any more and that are older than a time, taken out of the outbox.
STRAY: Final = """
update notice_outbox set done_at = clock_timestamp()
where done_at is null and destination <> all($1::text[]) and created_at < clock_timestamp() - $2::interval
returning id, destination, ordering_key, attempts
"""

#: Keeps messages that were given up, unless there is an open letter of the same notice to the same webhook.
BURY: Final = """
insert into notice_dead_letter (dead_letter_id, notice_id, webhook, attempts, detail, dead_at)
select gen_random_uuid()::text, notice_id, webhook, attempts, detail, clock_timestamp()
from unnest($1::text[], $2::text[], $3::integer[], $4::text[]) as dead (notice_id, webhook, attempts, detail)
on conflict (notice_id, webhook) where replayed_at is null do nothing
"""

#: Dead letters before a place, newest first; those that were sent again only where asked.
PAGE: Final = """
select dead_letter_id, plan_id, webhook, detail, attempts, dead_at, replayed_at, replayed_by
from notice_dead_letter join notice using (notice_id)
where ($1::timestamptz is null or (dead_at, dead_letter_id) < ($1, $2)) and ($3 or replayed_at is null)
order by dead_at desc, dead_letter_id desc limit $4
"""

#: One dead letter.
ONE: Final = """
select dead_letter_id, plan_id, webhook, detail, attempts, dead_at, replayed_at, replayed_by
from notice_dead_letter join notice using (notice_id) where dead_letter_id = $1
"""

#: Notes that a dead letter is sent again, and by whom; the notice that is sent.
REPLAYED: Final = """
update notice_dead_letter as letter set replayed_at = clock_timestamp(), replayed_by = $2
from notice join plan using (plan_id)
where dead_letter_id = $1 and replayed_at is null and notice.notice_id = letter.notice_id
returning letter.notice_id, letter.webhook, notice.event, plan.traceparent
"""


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """Who is told of what."""

    #: URI-reference that names this installation as the source of its events.
    source: str = "urn:lockstep:coordinator"
    #: Name of a webhook -> kinds of notices that it gets.
    webhooks: Mapping[str, frozenset[NoticeKind]] | None = None

    def of(self, kind: NoticeKind) -> tuple[str, ...]:
        """Webhooks that get notices of a kind."""
        return tuple(name for name, kinds in (self.webhooks or {}).items() if kind in kinds)


async def write(
    tx: Connection, told: Sequence[Notice], traces: Mapping[PlanId, str | None], subscriptions: Subscriptions
) -> list[Notice]:
    """Keep notices and put them on their way, in the transaction of what they tell; those that are new."""
    if not told:
        return []
    events = [cloud_event(each, subscriptions.source, traces.get(each.plan_id)) for each in told]
    rows = await tx.fetch(
        INSERT,
        [each.notice_id for each in told],
        [each.plan_id for each in told],
        [each.kind.value for each in told],
        events,
        [each.at for each in told],
    )
    fresh = {row["notice_id"] for row in rows}
    await NOTICE_OUTBOX.enqueue(
        tx,
        [
            NewMessage(webhook, each.notice_id, event, traces.get(each.plan_id))
            for each, event in zip(told, events, strict=True)
            if each.notice_id in fresh
            for webhook in subscriptions.of(each.kind)
        ],
    )
    return [each for each in told if each.notice_id in fresh]


async def bury(tx: Connection, message: Message, detail: str) -> None:
    """Keep a message that was given up as a dead letter, and take it out of the outbox."""
    await tx.execute(BURY, [message.ordering_key], [message.destination], [message.attempts], [detail])
    await NOTICE_OUTBOX.done(tx, [message])


async def bury_stray(tx: Connection, webhooks: Sequence[str], age: timedelta) -> int:
    """Give up what is for webhooks that are not configured any more and is older than `age`; how many."""
    rows = await tx.fetch(STRAY, list(webhooks), age)
    if rows:
        await tx.execute(
            BURY,
            [row["ordering_key"] for row in rows],
            [row["destination"] for row in rows],
            [row["attempts"] for row in rows],
            ["the webhook is not configured any more"] * len(rows),
        )
    return len(rows)


async def page(connection: Connection, before: tuple[datetime, str] | None, limit: int, *, replayed: bool) -> list[DeadLetter]:
    """Dead letters before a place, newest first; those that were sent again only where asked."""
    moment, letter_id = before or (None, "")
    return [_letter(row) for row in await connection.fetch(PAGE, moment, letter_id, replayed, limit)]


async def replay(tx: Connection, letter_id: str, who: str) -> tuple[DeadLetter | None, bool]:
    """Send a dead letter's notice again, the same bytes with the same id; the letter, None where there is no such, and whether it was not sent before."""
    sent = await tx.fetchrow(REPLAYED, letter_id, who)
    if sent is not None:
        message = NewMessage(sent["webhook"], sent["notice_id"], sent["event"], sent["traceparent"])
        await NOTICE_OUTBOX.enqueue(tx, [message])
    row = await tx.fetchrow(ONE, letter_id)
    return (None if row is None else _letter(row)), sent is not None


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(
        dead_letter_id=row["dead_letter_id"],
        plan_id=PlanId(row["plan_id"]),
        leg_id=LegId(""),
        command=NOTICE,
        participant=row["webhook"],
        reason="NOTICE_UNDELIVERED",
        detail=row["detail"],
        attempts=row["attempts"],
        dead_at=row["dead_at"],
        replayed_at=row["replayed_at"],
        replayed_by=row["replayed_by"],
    )
