"""Every statement on the participant's own tables, named, each for a list of legs at once.

Rows are always locked in the order (plan, leg), so that two batches never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Epoch, FenceRow, Phase
from lockstep_kit.ids import Digest, LegId, PlanId
from lockstep_kit.participant.records import LegKey, LegRecord
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Connection

_COLUMNS: Final = """
    leg.plan_id, leg.leg_id, leg.seq, leg.epoch_generation, leg.epoch_counter, leg.revision, leg.phase, leg.left_phase, leg.digest,
    leg.plan_digest, leg.binding, leg.decision, leg.prepare_by, leg.hold_until, leg.payer_signature, leg.key, leg.not_after, leg.closing,
    leg.authority, leg.certificate, leg.vote, leg.outcome, leg.reverse_authority, leg.reversals, leg.reversal, leg.permit, leg.trouble,
    leg.traceparent, leg.phase_since
"""

#: What a leg's work is made of: neither certificate nor authorities, nor what became of it.
_WORK_COLUMNS: Final = """
    leg.plan_id, leg.leg_id, leg.epoch_generation, leg.epoch_counter, leg.revision, leg.phase, leg.left_phase, leg.digest, leg.plan_digest,
    leg.binding, leg.decision, leg.prepare_by, leg.hold_until, leg.payer_signature, leg.key, leg.not_after, leg.closing, leg.vote, leg.reversals,
    leg.permit, leg.trouble, leg.traceparent, leg.phase_since
"""

#: Locks the rows of the legs that are known, and reads the clock after the last lock was won; one row with the clock alone when none is.
LOCK_LEGS: Final = f"""
    with locked as materialized (
        select {_COLUMNS} from participant_leg leg
        join unnest($1::text[], $2::text[]) asked (plan_id, leg_id) using (plan_id, leg_id)
        order by plan_id, leg_id for update of leg
    )
    select locked.*, clock_timestamp() as moment from (values (1)) once left join locked on true
"""

#: The rows of the legs that are known, without locking them.
READ_LEGS: Final = f"""
    select {_COLUMNS} from participant_leg leg
    join unnest($1::text[], $2::text[]) asked (plan_id, leg_id) using (plan_id, leg_id)
"""

#: The work of the legs that are known.
READ_WORK: Final = f"""
    select {_WORK_COLUMNS} from participant_leg leg
    join unnest($1::text[], $2::text[]) asked (plan_id, leg_id) using (plan_id, leg_id)
"""

#: The same, locked.
LOCK_WORK: Final = f"{READ_WORK} order by plan_id, leg_id for update of leg"

#: Locks the rows of legs, and reads at which revision they are.
HOLD_LEGS: Final = """
    select leg.plan_id, leg.leg_id, leg.revision from participant_leg leg
    join unnest($1::text[], $2::text[]) asked (plan_id, leg_id) using (plan_id, leg_id)
    order by plan_id, leg_id for update of leg
"""

#: Inserts legs that begin as unknown ones; where a row already holds an epoch alone, fills it. A leg that another transaction has begun
#: meanwhile, or whose epoch or revision it has raised, is left as it is and not returned.
INSERT_BEGUN: Final = """
    insert into participant_leg (
        plan_id, leg_id, epoch_generation, epoch_counter, revision, phase, digest, plan_digest, binding, decision, prepare_by, hold_until,
        payer_signature, key, not_after, closing, authority, certificate, vote, permit, traceparent, phase_since)
    select * from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], $8::bytea[], $9::bytea[], $10::text[],
        $11::timestamptz[], $12::timestamptz[], $13::bytea[], $14::bytea[], $15::timestamptz[], $16::bytea[], $17::bytea[], $18::bytea[],
        $19::bytea[], $20::bytea[], $21::text[], $22::timestamptz[])
    on conflict (plan_id, leg_id) do update set
        epoch_generation = excluded.epoch_generation, epoch_counter = excluded.epoch_counter, revision = excluded.revision,
        phase = excluded.phase, digest = excluded.digest, plan_digest = excluded.plan_digest, binding = excluded.binding,
        decision = excluded.decision, prepare_by = excluded.prepare_by, hold_until = excluded.hold_until,
        payer_signature = excluded.payer_signature, key = excluded.key, not_after = excluded.not_after, closing = excluded.closing,
        authority = excluded.authority, certificate = excluded.certificate, vote = excluded.vote, permit = excluded.permit,
        traceparent = excluded.traceparent, phase_since = excluded.phase_since
    where participant_leg.phase is null
        and (participant_leg.epoch_generation, participant_leg.epoch_counter) <= (excluded.epoch_generation, excluded.epoch_counter)
        and participant_leg.revision < excluded.revision
    returning plan_id
"""

#: Stores the working phase that known, locked legs enter by a command, with what the command brought.
UPDATE_BEGUN: Final = """
    update participant_leg leg set
        epoch_generation = new.epoch_generation, epoch_counter = new.epoch_counter, revision = new.revision, phase = new.phase,
        left_phase = new.left_phase, decision = new.decision, key = new.key, not_after = new.not_after, closing = new.closing,
        authority = new.authority, certificate = new.certificate, trouble = '', traceparent = new.traceparent,
        phase_since = new.phase_since, reverse_authority = new.reverse_authority, reversal = new.reversal,
        reversals = case when new.phase = 'REVERSING' then leg.reversals || new.reverse_order else leg.reversals end
    from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::bytea[],
        $10::timestamptz[], $11::bytea[], $12::bytea[], $13::bytea[], $14::text[], $15::timestamptz[], $16::bytea[], $17::bytea[],
        $18::bytea[]
    ) new (plan_id, leg_id, epoch_generation, epoch_counter, revision, phase, left_phase, decision, key, not_after, closing, authority,
        certificate, traceparent, phase_since, reverse_authority, reversal, reverse_order)
    where leg.plan_id = new.plan_id and leg.leg_id = new.leg_id
"""

#: Stores what was found of known, locked legs: the phase, and what was signed about it.
UPDATE_FOUND: Final = """
    update participant_leg leg set
        revision = new.revision, phase = new.phase, left_phase = new.left_phase, vote = new.vote, outcome = new.outcome,
        reversal = new.reversal, trouble = new.trouble, phase_since = new.phase_since
    from unnest(
        $1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[], $9::text[],
        $10::timestamptz[]
    ) new (plan_id, leg_id, revision, phase, left_phase, vote, outcome, reversal, trouble, phase_since)
    where leg.plan_id = new.plan_id and leg.leg_id = new.leg_id
"""

#: Raises the epoch of known legs; the database refuses to lower one.
RAISE_EPOCHS: Final = """
    update participant_leg leg set epoch_generation = new.epoch_generation, epoch_counter = new.epoch_counter
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) new (plan_id, leg_id, epoch_generation, epoch_counter)
    where leg.plan_id = new.plan_id and leg.leg_id = new.leg_id
"""

#: Raises epoch and revision of a known leg; the database refuses to lower either.
RAISE_FENCE: Final = """
    update participant_leg set epoch_generation = $3, epoch_counter = $4, revision = $5 where plan_id = $1 and leg_id = $2
"""

#: Remembers an epoch for a leg that is not known; not if the leg has become known meanwhile.
INSERT_EPOCH: Final = """
    insert into participant_leg (plan_id, leg_id, epoch_generation, epoch_counter, revision) values ($1, $2, $3, $4, $5)
    on conflict (plan_id, leg_id) do nothing returning plan_id
"""

#: Says or clears one sentence about a leg; nothing when it stands so already.
UPDATE_TROUBLE: Final = """
    update participant_leg set trouble = $3, revision = revision + 1
    where plan_id = $1 and leg_id = $2 and phase is not null and trouble <> $3
"""

#: A page of the legs in some of the phases in which something is still owed, after a leg, in the order (plan, leg).
READ_WORKING: Final = f"""
    select {_WORK_COLUMNS} from participant_leg leg
    where leg.phase in ('PREPARING', 'PREPARED', 'COMMITTING', 'ABORTING', 'REVERSING') and leg.phase = any($1::text[])
        and (leg.plan_id, leg.leg_id) > ($2, $3)
    order by leg.plan_id, leg.leg_id limit $4
"""

#: A page of all known legs in the order of their first record.
READ_PAGE: Final = f"""
    select {_COLUMNS} from participant_leg leg where leg.seq > $1 and leg.phase is not null order by leg.seq limit $2
"""

#: Where the outcome log stands: its incarnation, the last number given, the clock.
READ_LOG_HEAD: Final = """
    select incarnation, next_sequence - 1 as last_sequence, clock_timestamp() as moment from participant_outcome_counter
"""

#: The legs that changed after a number, each as it is now and once, with the last number read and where the outcome log stands; one row without a leg when
#: none did.
READ_CHANGES: Final = f"""
    with page as (
        select sequence, plan_id, leg_id from participant_outcome_log where sequence > $1 order by sequence limit $2
    ), latest as (
        select plan_id, leg_id, max(sequence) as sequence from page group by plan_id, leg_id
    ), changed as (
        select {_COLUMNS}, latest.sequence from latest join participant_leg leg using (plan_id, leg_id)
    )
    select changed.*, head.incarnation, head.next_sequence - 1 as last_sequence, (select max(sequence) from page) as read
    from participant_outcome_counter head left join changed on true
    order by changed.sequence
"""


_NO_COUNTER: Final = "the outcome counter has no row: the migration did not run to its end"


@dataclass(frozen=True, slots=True)
class LogPage:
    """What was read of the outcome log."""

    #: The legs that changed, each once and as it is now.
    records: list[LegRecord]
    #: Number of the last change read; the given one when there is nothing behind it.
    read: int
    #: Incarnation of the log.
    incarnation: str
    #: The last number given.
    last: int


async def lock(tx: Connection, legs: Iterable[LegKey]) -> tuple[dict[LegKey, LegRecord], datetime]:
    """The rows of the legs that are known, locked, and the database's clock after that."""
    plans, names = _split(legs)
    rows = await tx.fetch(LOCK_LEGS, plans, names)
    records = (record_of(row) for row in rows if row["plan_id"] is not None)
    return {record.key_of_leg: record for record in records}, max(row["moment"] for row in rows)


async def read(connection: Connection, legs: Iterable[LegKey]) -> dict[LegKey, LegRecord]:
    """The rows of the legs that are known."""
    rows = await connection.fetch(READ_LEGS, *_split(legs))
    records = [record_of(row) for row in rows]
    return {record.key_of_leg: record for record in records}


async def read_work(connection: Connection, legs: Iterable[LegKey], *, lock: bool) -> dict[LegKey, LegRecord]:
    """The rows of the legs that are known, as far as their work needs them, locked if asked."""
    rows = await connection.fetch(LOCK_WORK if lock else READ_WORK, *_split(legs))
    records = [record_of(row) for row in rows]
    return {record.key_of_leg: record for record in records}


async def hold(tx: Connection, legs: Iterable[LegKey]) -> dict[LegKey, int]:
    """Lock the rows of legs; at which revision they are."""
    rows = await tx.fetch(HOLD_LEGS, *_split(legs))
    return {(row["plan_id"], row["leg_id"]): row["revision"] for row in rows}


async def insert_begun(tx: Connection, records: Sequence[LegRecord]) -> int:
    """Store legs that were not known; returns how many of them still were not."""
    if not records:
        return 0
    ordered = sorted(records, key=lambda record: record.key_of_leg)
    returned = await tx.fetch(
        INSERT_BEGUN,
        *_fence_columns(ordered),
        [each.fence.digest for each in ordered],
        [each.plan_digest for each in ordered],
        [each.binding for each in ordered],
        [each.fence.decision for each in ordered],
        [each.prepare_by for each in ordered],
        [each.hold_until for each in ordered],
        [each.payer_signature for each in ordered],
        [each.key for each in ordered],
        [each.not_after for each in ordered],
        [each.closing for each in ordered],
        [each.authority for each in ordered],
        [each.certificate for each in ordered],
        [each.vote for each in ordered],
        [each.permit for each in ordered],
        [each.traceparent for each in ordered],
        [each.since for each in ordered],
    )
    return len(returned)


async def update_begun(tx: Connection, records: Sequence[LegRecord]) -> None:
    """Store the working phases that known, locked legs enter."""
    if not records:
        return
    await tx.execute(
        UPDATE_BEGUN,
        *_fence_columns(records),
        [each.left for each in records],
        [each.fence.decision for each in records],
        [each.key for each in records],
        [each.not_after for each in records],
        [each.closing for each in records],
        [each.authority for each in records],
        [each.certificate for each in records],
        [each.traceparent for each in records],
        [each.since for each in records],
        [each.reverse_authority for each in records],
        [each.reversal for each in records],
        [each.fence.reversals[-1] if each.fence.reversals else None for each in records],
    )


async def update_found(tx: Connection, records: Sequence[LegRecord]) -> None:
    """Store what was found of known, locked legs."""
    if not records:
        return
    await tx.execute(
        UPDATE_FOUND,
        *_split(each.key_of_leg for each in records),
        [each.fence.revision for each in records],
        [each.fence.phase for each in records],
        [each.left for each in records],
        [each.vote for each in records],
        [each.outcome for each in records],
        [each.reversal for each in records],
        [each.trouble for each in records],
        [each.since for each in records],
    )


async def raise_epochs(tx: Connection, epochs: Mapping[LegKey, Epoch]) -> None:
    """Raise the epochs of known, locked legs."""
    if epochs:
        generations, counters = [each.generation for each in epochs.values()], [each.counter for each in epochs.values()]
        await tx.execute(RAISE_EPOCHS, *_split(epochs), generations, counters)


async def raise_fence(tx: Connection, leg: LegKey, row: FenceRow) -> None:
    """Raise epoch and revision of a known, locked leg."""
    await tx.execute(RAISE_FENCE, *leg, row.epoch.generation, row.epoch.counter, row.revision)


async def insert_epoch(tx: Connection, leg: LegKey, epoch: Epoch, revision: int) -> bool:
    """Remember an epoch and a revision for a leg that is not known; False when it has become known."""
    return await tx.fetchval(INSERT_EPOCH, *leg, epoch.generation, epoch.counter, revision) is not None


async def set_trouble(tx: Connection, leg: LegKey, text: str) -> None:
    """Say one sentence about a leg, or clear it with ""."""
    await tx.execute(UPDATE_TROUBLE, *leg, text)


async def working(connection: Connection, phases: Collection[Phase], after: LegKey | None, limit: int) -> list[LegRecord]:
    """A page of the legs in these phases, as far as their work needs them."""
    plan_id, leg_id = after or ("", "")
    return [record_of(row) for row in await connection.fetch(READ_WORKING, [str(each) for each in phases], plan_id, leg_id, limit)]


async def page(connection: Connection, after_seq: int, limit: int) -> list[tuple[int, LegRecord]]:
    """A page of all known legs with their places."""
    return [(row["seq"], record_of(row)) for row in await connection.fetch(READ_PAGE, after_seq, limit)]


async def log_head(connection: Connection) -> tuple[str, int, datetime]:
    """Incarnation of the outcome log, last number given, database's clock."""
    row = await connection.fetchrow(READ_LOG_HEAD)
    if row is None:
        raise AssertionError(_NO_COUNTER)
    return row["incarnation"], row["last_sequence"], row["moment"]


async def changes(connection: Connection, after: int, limit: int) -> LogPage:
    """The legs that changed after a number, as they are now, and where the log stands."""
    rows = await connection.fetch(READ_CHANGES, after, limit)
    if not rows:
        raise AssertionError(_NO_COUNTER)
    head = rows[0]
    # Of a leg that is not known only its revision can change, when it is raised: nothing to tell.
    records = [record_of(row) for row in rows if row["phase"] is not None]
    return LogPage(records, after if head["read"] is None else head["read"], head["incarnation"], head["last_sequence"])


def record_of(row: asyncpg.Record) -> LegRecord:
    """A row as a record; columns that were not read are taken for empty."""
    return LegRecord(
        plan_id=PlanId(row["plan_id"]),
        leg_id=LegId(row["leg_id"]),
        fence=FenceRow(
            phase=Phase(row["phase"]) if row["phase"] is not None else None,
            digest=Digest(row["digest"]) if row["digest"] is not None else None,
            epoch=Epoch(row["epoch_generation"], row["epoch_counter"]),
            decision=Decision(row["decision"]) if row["decision"] is not None else None,
            revision=row["revision"],
            reversals=tuple(Digest(each) for each in row["reversals"]),
        ),
        left=Phase(row["left_phase"]) if row["left_phase"] is not None else None,
        plan_digest=Digest(row["plan_digest"]) if row["plan_digest"] is not None else None,
        binding=row["binding"],
        prepare_by=row["prepare_by"],
        hold_until=row["hold_until"],
        payer_signature=row["payer_signature"],
        key=row["key"],
        not_after=row["not_after"],
        closing=row["closing"],
        authority=row.get("authority"),
        certificate=row.get("certificate"),
        vote=row["vote"],
        outcome=row.get("outcome"),
        reverse_authority=row.get("reverse_authority"),
        reversal=row.get("reversal"),
        permit=row["permit"],
        trouble=row["trouble"],
        traceparent=row["traceparent"],
        since=row["phase_since"],
    )


def _fence_columns(records: Sequence[LegRecord]) -> tuple[list[str], list[str], list[int], list[int], list[int], list[str | None]]:
    return (
        [each.plan_id for each in records],
        [each.leg_id for each in records],
        [each.fence.epoch.generation for each in records],
        [each.fence.epoch.counter for each in records],
        [each.fence.revision for each in records],
        [each.fence.phase for each in records],
    )


def _split(legs: Iterable[LegKey]) -> tuple[list[PlanId], list[LegId]]:
    pairs = list(legs)
    return [plan_id for plan_id, _ in pairs], [leg_id for _, leg_id in pairs]
