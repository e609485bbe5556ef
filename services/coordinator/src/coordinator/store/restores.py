"""What is to be done after a database was put back: the coordinator's own, a participant's, the journal's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from coordinator import facts
from coordinator.dossier import Dossier
from coordinator.model import EventType
from coordinator.payloads import JournalEvent, journal_event
from coordinator.restoring import Adopted
from coordinator.store import escalation_documents, operators, outboxes
from coordinator.store.writing import Stepped, Writing
from lockstep_kit.db import Connection
from lockstep_kit.fence import Epoch, Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass, replace

#: Who holds the plans that are being found again: no replica, so that none sends, steps or takes over any of them.
OWNER: Final = "restore"

#: Generation that the database has seen, locked.
LOCK_GENERATION: Final = "select generation from installation for update"

#: Generation that the database has seen.
READ_GENERATION: Final = "select generation from installation"

#: Notes a new generation.
RAISE_GENERATION: Final = "update installation set generation = $1"

#: Everything that is not closed is to be found again.
MARK_PLANS: Final = """
insert into plan_restore (plan_id, generation, finding) select plan_id, $1, '' from plan where state <> 'CLOSED' order by plan_id
on conflict (plan_id) do update set generation = excluded.generation
"""

#: Takes the leases of those plans for as long as that takes.
HOLD_PLANS: Final = """
insert into lease (resource_id, owner, generation, counter, expires_at)
select plan_id, $2, $1, 1, 'infinity' from plan where state <> 'CLOSED' order by plan_id
on conflict (resource_id) do update
set owner = excluded.owner, generation = excluded.generation, counter = excluded.counter, expires_at = excluded.expires_at
"""

#: Places in the log of changes that watchers read before name something else now.
RENEW_CHANGES: Final = "update plan_event_counter set incarnation = gen_random_uuid()::text"

#: Has all legs of participants listed, from the beginning.
SWEEP: Final = """
insert into sweep (participant, number, page_token) select participant, 1, '' from unnest($1::text[]) as participant
on conflict (participant) do update set number = sweep.number + 1, page_token = ''
"""

#: Participants whose legs are to be listed, and how far that has come.
SWEEPS: Final = "select participant, number, page_token from sweep order by participant"

#: Notes how far the listing has come, unless it began anew.
SWEPT: Final = "update sweep set page_token = $3 where participant = $1 and number = $2 returning participant"

#: The listing and what follows from it are done, unless it began anew.
END_SWEEP: Final = "delete from sweep where participant = $1 and number = $2 returning participant"

#: Keeps what a participant listed.
LIST_LEGS: Final = """
insert into listed_leg (participant, plan_id, leg_id, revision, phase)
select $1, * from unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) as listed (plan_id, leg_id, revision, phase)
on conflict (participant, plan_id, leg_id) do update set revision = excluded.revision, phase = excluded.phase
"""

#: Forgets it.
FORGET_LISTED: Final = "delete from listed_leg where participant = $1"

#: Legs that a participant listed, of plans that nobody knows.
LISTED_ORPHANS: Final = """
insert into orphan_leg (plan_id, leg_id, participant, phase, amount, finding)
select plan_id, leg_id, participant, phase, '', '' from listed_leg
where participant = $1 and not exists (select from plan where plan.plan_id = listed_leg.plan_id) order by plan_id, leg_id
on conflict (plan_id, leg_id) do nothing
"""

#: Legs with what their participants listed of them, and with reports that are kept until their plans are taken up: those were heard, too.
_COMPARED: Final = """plan_leg as leg
left join listed_leg as listed on listed.participant = leg.participant and listed.plan_id = leg.plan_id and listed.leg_id = leg.leg_id
left join leg_news as news on news.plan_id = leg.plan_id and news.leg_id = leg.leg_id"""

#: Whether a leg's participant may know less of it than was heard: revisions alone do not say it, since a participant that was put back has gone on since.
#: Where it has come just as far as was heard, on another way, even its last word is no news to anybody.
_FORGOTTEN: Final = """(leg.revision > coalesce(listed.revision, 0)
    or news.revision >= coalesce(listed.revision, 0)
    or (leg.phase is distinct from listed.phase
        and (leg.revision = listed.revision or listed.phase not in ('REFUSED', 'COMMITTED', 'RELEASED', 'REVERSED'))))"""

#: Legs of a participant of which the coordinator may know more than it listed, with the plan's lease.
BEHIND: Final = f"""
select leg.plan_id, leg.leg_id, greatest(leg.revision, news.revision) as revision, lease.generation, lease.counter
from {_COMPARED} join lease on lease.resource_id = leg.plan_id
where leg.participant = $1 and {_FORGOTTEN} and (leg.plan_id, leg.leg_id) > ($2, $3)
order by leg.plan_id, leg.leg_id limit $4
"""

#: The last command about each of these legs is to be sent again.
REVIVE: Final = """
update leg_command set answered = false, due_at = clock_timestamp()
from unnest($1::text[], $2::text[]) as behind (plan_id, leg_id), plan_leg as leg
where leg.plan_id = behind.plan_id and leg.leg_id = behind.leg_id
  and leg_command.plan_id = leg.plan_id and leg_command.leg_id = leg.leg_id and leg_command.command = leg.last_order
  and leg.last_order <> 'PREPARE'
"""

#: Chains that the journal may have lost entries of: of open plans, and of those whose journal leg it does not know as it was.
REFILL: Final = f"""
insert into journal_refill (plan_id)
select progress.plan_id from journal_progress as progress join plan on plan.plan_id = progress.plan_id
where plan.state <> 'CLOSED' and progress.frozen = ''
union
select leg.plan_id from {_COMPARED} where leg.participant = $1 and {_FORGOTTEN}
on conflict (plan_id) do nothing
"""

#: Chains that the journal was told to close again and again, and does not: it waits for entries that it may have lost, though its outcome log, which
#: had no news in that time, shows no restore.
_REFILL_WAITING: Final = """from leg_command as command
join plan_leg as leg on leg.plan_id = command.plan_id and leg.leg_id = command.leg_id and leg.phase in ('COMMITTING', 'ABORTING')
where command.behind_journal and not command.answered and command.attempts >= $1"""
REFILL_WAITING: Final = f"""
insert into journal_refill (plan_id)
select command.plan_id {_REFILL_WAITING} order by command.plan_id
on conflict (plan_id) do nothing
"""

#: Plans whose chains are to be filled again.
TO_REFILL: Final = "select plan_id from journal_refill order by plan_id limit $1"

#: A chain is whole again.
REFILLED: Final = "delete from journal_refill where plan_id = $1"

#: Plans that are to be found again, behind a place.
UNRESTORED: Final = "select plan_id, generation from plan_restore where plan_id > $1 order by plan_id limit $2"

#: Whether there is anything to be found again, listed, filled or settled: mostly there is not, and one statement says so.
ANYTHING: Final = f"""
select exists (select from plan_restore) or exists (select from sweep) or exists (select from journal_refill)
    or exists (select from orphan_leg where settled_at is null) or exists (select {_REFILL_WAITING})
"""

#: Takes a plan to find it again; nothing where another replica has done so.
LOCK_RESTORE: Final = "select plan_id from plan_restore where plan_id = $1 and generation = $2 for update skip locked"

#: Notes why a plan cannot be found again now.
NOTE_FINDING: Final = "update plan_restore set finding = $2 where plan_id = $1 and finding <> $2 returning plan_id"

#: A plan is found again.
END_RESTORE: Final = "delete from plan_restore where plan_id = $1"

#: Its lease is free.
FREE: Final = "update lease set expires_at = '-infinity' where resource_id = $1 and owner = $2"

#: Every command about a plan's legs counts as answered, but for the one that closes a sealed chain.
END_COMMANDS: Final = """
update leg_command set answered = true where plan_id = $1 and not answered and not (behind_journal and $2)
"""

#: Keeps legs of plans that nobody knows.
KEEP_ORPHANS: Final = """
insert into orphan_leg (plan_id, leg_id, participant, phase, amount, finding)
select plan_id, leg_id, $1, phase, '', '' from unnest($2::text[], $3::text[], $4::text[]) as new (plan_id, leg_id, phase)
order by plan_id, leg_id on conflict (plan_id, leg_id) do nothing
"""

#: Plans that nobody knows and of which a leg is not settled, behind a place.
ORPHANS: Final = """
select plan_id from orphan_leg where settled_at is null and plan_id > $1 group by plan_id order by plan_id limit $2
"""

#: Legs of such a plan.
ORPHAN_LEGS: Final = "select leg_id, participant, finding from orphan_leg where plan_id = $1 order by leg_id"

#: Notes what became of an orphan.
NOTE_ORPHAN: Final = """
update orphan_leg set phase = $3, deadline = $4, amount = $5, finding = $6,
    settled_at = case when $7 then coalesce(settled_at, clock_timestamp()) end
where plan_id = $1 and leg_id = $2
"""


class GenerationStale(Exception):
    """The generation file is older than the database: it was not raised after a restore, or belongs to another installation."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A listing of all legs of a participant."""

    #: The participant.
    participant: str
    #: Grows when it begins anew.
    number: int
    #: The next page; "" at the beginning.
    page_token: str


@dataclass(frozen=True, slots=True)
class BehindLeg:
    """A leg of which its participant knows less than the coordinator."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: Revision that was seen.
    revision: int
    #: Lease of its plan.
    epoch: Epoch


async def begin(tx: Connection, generation: int, participants: Sequence[str]) -> bool:
    """Note the generation that the process was started with; True where it is higher than the database has seen: a restore has happened.

    Raises:
        GenerationStale: it is lower.
    """
    seen: int = await tx.fetchval(LOCK_GENERATION)
    if generation < seen:
        raise GenerationStale(f"the generation file says {generation}, the database has seen {seen}")
    if generation == seen:
        return False
    await tx.execute(RAISE_GENERATION, generation)
    await tx.execute(MARK_PLANS, generation)
    await tx.execute(HOLD_PLANS, generation, OWNER)
    await tx.execute(RENEW_CHANGES)
    await sweep(tx, participants)
    return True


async def sweep(connection: Connection, participants: Sequence[str]) -> None:
    """Have all legs of participants listed."""
    await connection.execute(SWEEP, list(participants))


async def sweeps(connection: Connection) -> list[Sweep]:
    """Listings that are not done."""
    return [Sweep(row["participant"], row["number"], row["page_token"]) for row in await connection.fetch(SWEEPS)]


async def swept(tx: Connection, told: Sweep, legs: Sequence[tuple[PlanId, LegId, int, Phase]], next_token: str) -> bool:
    """Keep a page; False where the listing began anew meanwhile."""
    if await tx.fetchval(SWEPT, told.participant, told.number, next_token) is None:
        return False
    await tx.execute(
        LIST_LEGS,
        told.participant,
        [plan_id for plan_id, _, _, _ in legs],
        [leg_id for _, leg_id, _, _ in legs],
        [revision for _, _, revision, _ in legs],
        [phase.value for _, _, _, phase in legs],
    )
    return True


async def listed_orphans(tx: Connection, participant: str) -> None:
    """Keep the listed legs of plans that nobody knows."""
    await tx.execute(LISTED_ORPHANS, participant)


async def behind(connection: Connection, participant: str, after: tuple[str, str], limit: int) -> list[BehindLeg]:
    """Legs of which the participant listed less than is known, behind a place."""
    rows = await connection.fetch(BEHIND, participant, *after, limit)
    return [
        BehindLeg(PlanId(row["plan_id"]), LegId(row["leg_id"]), row["revision"], Epoch(row["generation"], row["counter"]))
        for row in rows
    ]


async def revive(connection: Connection, legs: Sequence[BehindLeg]) -> None:
    """Have the last command about each leg sent again."""
    await connection.execute(REVIVE, [each.plan_id for each in legs], [each.leg_id for each in legs])


async def refill(tx: Connection, participant: str) -> None:
    """Have the journal's chains filled again."""
    await tx.execute(REFILL, participant)


async def refill_waiting(connection: Connection, attempts: int) -> None:
    """Have those chains filled again that the journal does not close, however often it is told."""
    await connection.execute(REFILL_WAITING, attempts)


async def to_refill(connection: Connection, limit: int) -> list[PlanId]:
    """Plans whose chains are to be filled again."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(TO_REFILL, limit)]


async def refilled(connection: Connection, plan_id: PlanId) -> None:
    """A chain is whole again."""
    await connection.execute(REFILLED, plan_id)


async def end_sweep(tx: Connection, told: Sweep) -> None:
    """The listing is done."""
    if await tx.fetchval(END_SWEEP, told.participant, told.number) is not None:
        await tx.execute(FORGET_LISTED, told.participant)


async def anything(connection: Connection, attempts: int) -> bool:
    """Whether anything waits; chains that the journal was told to close so often and does not are among it."""
    found: bool = await connection.fetchval(ANYTHING, attempts)
    return found


async def unrestored(connection: Connection, after: str, limit: int) -> list[tuple[PlanId, int]]:
    """Plans that are to be found again, behind a place, each with its generation."""
    return [(PlanId(row["plan_id"]), row["generation"]) for row in await connection.fetch(UNRESTORED, after, limit)]


async def lock(tx: Connection, plan_id: PlanId, generation: int) -> bool:
    """Take a plan to find it again."""
    return await tx.fetchval(LOCK_RESTORE, plan_id, generation) is not None


async def note(connection: Connection, plan_id: PlanId, finding: str) -> bool:
    """Note why a plan cannot be found again now; whether it is another reason than before."""
    return await connection.fetchval(NOTE_FINDING, plan_id, finding) is not None


async def end(tx: Connection, plan_id: PlanId) -> None:
    """A plan is found again, and its lease free."""
    await tx.execute(END_RESTORE, plan_id)
    await tx.execute(FREE, plan_id, OWNER)


async def save(tx: Connection, before: Dossier, adopted: Adopted, generation: int, now: datetime) -> None:
    """Write a plan as it was found again, with what the database did not have of it.

    Raises:
        LockstepError: PLAN_CHANGED; another replica was faster. Nothing must be committed.
    """
    plan_id, after = before.plan_id, adopted.plan
    writing = Writing()
    writing.stepped(Stepped(before, after, Epoch(generation, 1), now))
    await writing.write(tx, now)
    for moved, at in adopted.moves:
        writing.moved(plan_id, moved)
        await writing.write(tx, at)
    # What stands on chain of an escalation names it by the id that it has in the journal.
    filed = [
        each if said is None else replace(each, escalation_id=said.escalation_id)
        for each, said in zip(operators.filed(plan_id, len(before.tickets), adopted.tickets), adopted.said, strict=True)
    ]
    await operators.insert_tickets(tx, [(plan_id, len(before.tickets) + place, each) for place, each in enumerate(filed, start=1)])
    await escalation_documents.insert(tx, [each for each in adopted.said if each is not None], now)
    for each in adopted.written:
        # The closing entry is the journal's own.
        if each.type is not EventType.PLAN_CLOSED:
            event = JournalEvent(each.sequence, each.type, each.actor, each.actor_role, each.payload)
            writing.recorded(plan_id, event, before.traceparent)
            await writing.write(tx, each.event_time)
            await outboxes.appended(tx, {plan_id: each.sequence})
    dossier = Dossier(
        after, before.header, before.files, before.tickets, before.version, before.created_at, now, before.traceparent
    )
    for record in adopted.records:
        writing.recorded(plan_id, journal_event(dossier, record), before.traceparent)
    for command in adopted.commands:
        participant = before.files[before.index(command.leg_id)].participant
        writing.given(command, participant, facts.leg(after, command.leg_id).kind, before.traceparent, None)
    await writing.write(tx, now)
    # Those that were obeyed, too: they are there to be sent again.
    await tx.execute(END_COMMANDS, plan_id, before.plan.sealing)


async def keep_orphans(tx: Connection, participant: str, legs: Sequence[tuple[PlanId, LegId, Phase]]) -> None:
    """Keep legs of plans that nobody knows."""
    if legs:
        await tx.execute(
            KEEP_ORPHANS,
            participant,
            [plan_id for plan_id, _, _ in legs],
            [leg_id for _, leg_id, _ in legs],
            [phase.value for _, _, phase in legs],
        )


async def orphans(connection: Connection, after: str, limit: int) -> list[PlanId]:
    """Plans that nobody knows and of which a leg is not settled, behind a place."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(ORPHANS, after, limit)]


async def orphan_legs(connection: Connection, plan_id: PlanId) -> Mapping[LegId, tuple[str, str]]:
    """Legs of such a plan: participant, and what was found of it."""
    rows = await connection.fetch(ORPHAN_LEGS, plan_id)
    return {LegId(row["leg_id"]): (row["participant"], row["finding"]) for row in rows}


async def note_orphan(
    connection: Connection,
    plan_id: PlanId,
    leg_id: LegId,
    *,
    phase: Phase,
    deadline: datetime,
    amount: str,
    finding: str,
    settled: bool,
) -> None:
    """Note what became of an orphan."""
    await connection.execute(NOTE_ORPHAN, plan_id, leg_id, phase.value, deadline, amount, finding, settled)
