"""Dead letters: commands that their participant will never take as they are, parked until an operator has them sent again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from coordinator.commands import Command
from lockstep_kit.db import Connection
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass

#: Parks commands: an infinite due time is in no batch.
PARK: Final = """
update leg_command set due_at = 'infinity'
from unnest($1::text[], $2::text[], $3::text[]) as dead (plan_id, leg_id, command)
where leg_command.plan_id = dead.plan_id and leg_command.leg_id = dead.leg_id and leg_command.command = dead.command
  and not leg_command.answered
"""

#: Keeps the letters, unless there is an open one already.
INSERT: Final = """
insert into dead_letter (dead_letter_id, plan_id, leg_id, command, participant, reason, detail, attempts, dead_at)
select gen_random_uuid()::text, plan_id, leg_id, command, $4, reason, detail, attempts, clock_timestamp()
from unnest($1::text[], $2::text[], $3::text[], $5::text[], $6::text[], $7::integer[])
    as new (plan_id, leg_id, command, reason, detail, attempts)
on conflict (plan_id, leg_id, command) where replayed_at is null do nothing
"""

#: Letters before a place, newest first; of the open ones only those whose command still waits.
PAGE: Final = """
select letter.* from dead_letter as letter
join leg_command as command on command.plan_id = letter.plan_id and command.leg_id = letter.leg_id and command.command = letter.command
where ($1::timestamptz is null or (letter.dead_at, letter.dead_letter_id) < ($1, $2))
  and ($3 or (letter.replayed_at is null and not command.answered and command.due_at = 'infinity'))
order by letter.dead_at desc, letter.dead_letter_id desc limit $4
"""

#: One letter, locked until the transaction ends.
LOCK: Final = "select * from dead_letter where dead_letter_id = $1 for update"

#: Notes that letters are sent again, and by whom.
REPLAYED: Final = """
update dead_letter set replayed_at = clock_timestamp(), replayed_by = $2
where dead_letter_id = any($1) and replayed_at is null returning *
"""

#: The open letters of a plan.
OPEN_OF_PLAN: Final = "select dead_letter_id from dead_letter where plan_id = $1 and replayed_at is null order by dead_letter_id"

#: Makes parked commands due now, with their rejections forgotten; the participants concerned.
REVIVE: Final = """
update leg_command set due_at = clock_timestamp(), rejections = 0, last_rejection = ''
from unnest($1::text[], $2::text[], $3::text[]) as dead (plan_id, leg_id, command)
where leg_command.plan_id = dead.plan_id and leg_command.leg_id = dead.leg_id and leg_command.command = dead.command
  and not leg_command.answered and leg_command.due_at = 'infinity' returning leg_command.participant
"""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A command, or a notice, that was given up."""

    #: Id of the letter.
    dead_letter_id: str
    #: Its plan.
    plan_id: PlanId
    #: Its leg; "" for a notice.
    leg_id: LegId
    #: PREPARE, COMMIT, ABORT or REVERSE; NOTICE for a notice.
    command: str
    #: Who rejects it: a participant, or a webhook.
    participant: str
    #: Its reason.
    reason: str
    #: Its sentence.
    detail: str
    #: How often it was sent.
    attempts: int
    #: When it was given up.
    dead_at: datetime
    #: When it was sent again; None: it was not.
    replayed_at: datetime | None
    #: Who asked for that.
    replayed_by: str | None


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(**dict(row.items()))


async def bury(tx: Connection, participant: str, dead: Sequence[tuple[Command, str, str]]) -> None:
    """Park commands of a participant, each with its reason and its sentence."""
    if not dead:
        return
    keys = (
        [each.plan_id for each, _, _ in dead],
        [each.leg_id for each, _, _ in dead],
        [each.order.value for each, _, _ in dead],
    )
    await tx.execute(PARK, *keys)
    await tx.execute(
        INSERT,
        *keys,
        participant,
        [reason for _, reason, _ in dead],
        [detail for _, _, detail in dead],
        [each.attempts + 1 for each, _, _ in dead],
    )


async def page(connection: Connection, before: tuple[datetime, str] | None, limit: int, *, replayed: bool) -> list[DeadLetter]:
    """Letters before a place, newest first; those that were sent again only where asked."""
    moment, letter_id = before or (None, "")
    return [_letter(row) for row in await connection.fetch(PAGE, moment, letter_id, replayed, limit)]


async def lock(tx: Connection, letter_id: str) -> DeadLetter | None:
    """A letter, locked until the transaction ends; None where there is no such."""
    row = await tx.fetchrow(LOCK, letter_id)
    return None if row is None else _letter(row)


async def replay(tx: Connection, letters: Sequence[str], who: str) -> tuple[list[DeadLetter], frozenset[str]]:
    """Have letters sent again: as they are then, and the participants that get something. Those sent again before are left out."""
    if not letters:
        return [], frozenset()
    found = [_letter(row) for row in await tx.fetch(REPLAYED, list(letters), who)]
    told = await tx.fetch(
        REVIVE, [each.plan_id for each in found], [each.leg_id for each in found], [each.command for each in found]
    )
    return found, frozenset(row["participant"] for row in told)


async def open_of(tx: Connection, plan_id: PlanId) -> list[str]:
    """The open letters of a plan."""
    return [row["dead_letter_id"] for row in await tx.fetch(OPEN_OF_PLAN, plan_id)]
