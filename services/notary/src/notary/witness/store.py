"""Every statement about what was witnessed (`witness`, `witness_checkpoint`, `witness_alarm`)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import asyncpg

from lockstep_kit.db import Connection
from lockstep_kit.ids import Digest
from lockstep_kit.values import dataclass
from notary.witness.judging import EMPTY, Alarm, Rule, Seen

Row: TypeAlias = "asyncpg.Record"

ACKNOWLEDGED_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that was cosigned."""

    #: Counts from 1; one more whenever a person has had another history followed.
    history: int
    #: The tree.
    seen: Seen
    #: The note with the cosignature.
    note: bytes
    #: When it was cosigned.
    at: datetime


@dataclass(frozen=True, slots=True)
class RaisedAlarm:
    """An alarm as it is kept."""

    #: Its place among all.
    id: int
    #: What is broken.
    alarm: Alarm
    #: What was cosigned before; None: nothing.
    cosigned_note: bytes | None
    #: As it was received; None: the journal showed none.
    refused_note: bytes | None
    #: The consistency proof that was shown.
    proof: tuple[bytes, ...]
    #: Since when.
    at: datetime
    #: What a person found out; None: nobody has looked.
    finding: str | None
    #: When a person looked.
    acknowledged_at: datetime | None
    #: Incarnation that began with it; None: the one before went on.
    follows: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How the witness stands to the log."""

    #: The database's clock.
    now: datetime
    #: What was cosigned last; None: nothing.
    last: Witnessed | None
    #: What is refused; None: nothing.
    alarm: RaisedAlarm | None
    #: Whether the database was put back, and nobody has looked since.
    restored: bool
    #: When the journal last showed what agreed; None: never.
    looked_at: datetime | None
    #: When an anchor was last asked for, and of which root.
    anchor_requested_at: datetime | None
    #: Root of that.
    anchor_requested_root: bytes | None

    @property
    def seen(self) -> Seen:
        """The tree that was cosigned last."""
        return EMPTY if self.last is None else self.last.seen

    @property
    def place(self) -> tuple[int, int, int | None]:
        """What changes whenever something is cosigned, refused or acknowledged."""
        last = (0, -1) if self.last is None else (self.last.history, self.last.seen.size)
        return (*last, None if self.alarm is None else self.alarm.id)


#: Makes writers wait for one another. A statement by itself: the next one reads what the others have committed.
LOCK: Final = "select from witness for update"

#: The witness's one row, on the database's clock, with the checkpoint that was cosigned last and the alarm that nobody has looked at.
STANDING: Final = """
select clock_timestamp() as now, incarnation <> known_incarnation as restored, looked_at, anchor_requested_at, anchor_requested_root, last.*, alarm.*
from witness
    left join lateral (
        select * from witness_checkpoint order by history desc, tree_size desc limit 1
    ) as last on true
    left join lateral (select * from witness_alarm where acknowledged_at is null limit 1) as alarm on true
"""

#: Alarms that persons have looked at, newest first.
ACKNOWLEDGED: Final = "select * from witness_alarm where acknowledged_at is not null order by id desc limit $1"

#: The checkpoint that was cosigned last.
NEWEST: Final = "select * from witness_checkpoint order by history desc, tree_size desc limit 1"

#: The smallest checkpoint of the present history that has so many leaves.
AT_LEAST: Final = """
select * from witness_checkpoint where history = (select max(history) from witness_checkpoint) and tree_size >= $1
order by tree_size limit 1
"""

#: The same of checkpoints whose root stands in a final block.
ANCHORED_NEWEST: Final = """
select c.* from witness_checkpoint as c
where history = (select max(history) from witness_checkpoint)
  and exists (select from anchor where root = c.root_hash and block_hash is not null)
order by tree_size desc limit 1
"""

#: The same, the smallest that has so many leaves.
ANCHORED_AT_LEAST: Final = """
select c.* from witness_checkpoint as c
where history = (select max(history) from witness_checkpoint) and tree_size >= $1
  and exists (select from anchor where root = c.root_hash and block_hash is not null)
order by tree_size limit 1
"""

#: Keeps a checkpoint that is cosigned.
WITNESS: Final = """
insert into witness_checkpoint (history, tree_size, root_hash, signed_note, witnessed_at) values ($1, $2, $3, $4, $5)
"""

#: Keeps what is refused.
RAISE: Final = """
insert into witness_alarm (rule, message, cosigned_note, refused_note, proof) values ($1, $2, $3, $4, $5) returning id
"""

#: Keeps what a person found out about an alarm.
ACKNOWLEDGE: Final = """
update witness_alarm set finding = $2, acknowledged_at = clock_timestamp(), follows = $3 where id = $1 and acknowledged_at is null
"""

#: Somebody has looked at a database that was put back.
KNOW: Final = "update witness set known_incarnation = incarnation"

#: The journal has shown what agrees.
LOOKED: Final = "update witness set looked_at = clock_timestamp()"

#: An anchor of a root was asked for.
ANCHOR_REQUESTED: Final = "update witness set anchor_requested_at = clock_timestamp(), anchor_requested_root = $1"


def _witnessed(row: Row) -> Witnessed:
    seen = Seen(row["tree_size"], Digest(row["root_hash"]))
    return Witnessed(row["history"], seen, row["signed_note"], row["witnessed_at"])


def _alarm(row: Row) -> RaisedAlarm:
    return RaisedAlarm(
        id=row["id"],
        alarm=Alarm(Rule(row["rule"]), row["message"]),
        cosigned_note=row["cosigned_note"],
        refused_note=row["refused_note"],
        proof=tuple(row["proof"] or ()),
        at=row["raised_at"],
        finding=row["finding"],
        acknowledged_at=row["acknowledged_at"],
        follows=row["follows"],
    )


async def standing(connection: Connection) -> Standing:
    """How the witness stands to the log."""
    row = await connection.fetchrow(STANDING)
    if row is None:
        raise AssertionError("the migration makes the witness's row")
    return Standing(
        now=row["now"],
        last=None if row["tree_size"] is None else _witnessed(row),
        alarm=None if row["id"] is None else _alarm(row),
        restored=row["restored"],
        looked_at=row["looked_at"],
        anchor_requested_at=row["anchor_requested_at"],
        anchor_requested_root=row["anchor_requested_root"],
    )


async def locked(tx: Connection) -> Standing:
    """The same, and nobody changes it until the transaction ends."""
    await tx.execute(LOCK)
    return await standing(tx)


async def witness(tx: Connection, checkpoint: Witnessed) -> None:
    """Keep a checkpoint that is cosigned."""
    seen = checkpoint.seen
    await tx.execute(WITNESS, checkpoint.history, seen.size, seen.root, checkpoint.note, checkpoint.at)


async def raise_alarm(
    tx: Connection, alarm: Alarm, *, cosigned: bytes | None, refused: bytes | None, proof: Sequence[bytes] | None
) -> None:
    """Keep what is refused: nothing is cosigned from now on."""
    await tx.execute(RAISE, alarm.rule.value, alarm.message, cosigned, refused, proof)


async def acknowledge(tx: Connection, alarm: RaisedAlarm, finding: str, *, follows: int | None) -> None:
    """Keep what a person found out about an alarm, and the history that begins with it if one does."""
    await tx.execute(ACKNOWLEDGE, alarm.id, finding, follows)
    if alarm.alarm.rule is Rule.DATABASE_RESTORED:
        await tx.execute(KNOW)


async def looked(tx: Connection) -> None:
    """The journal has shown what agrees."""
    await tx.execute(LOOKED)


async def anchor_requested(tx: Connection, root: Digest) -> None:
    """An anchor of a root was asked for."""
    await tx.execute(ANCHOR_REQUESTED, root)


async def at_least(connection: Connection, size_min: int, *, anchored: bool = False) -> Witnessed | None:
    """The smallest checkpoint of the log's present history that has so many leaves; with none asked for, the newest."""
    if size_min:
        row = await connection.fetchrow(ANCHORED_AT_LEAST if anchored else AT_LEAST, size_min)
    else:
        row = await connection.fetchrow(ANCHORED_NEWEST if anchored else NEWEST)
    return None if row is None else _witnessed(row)


async def acknowledged(connection: Connection) -> tuple[RaisedAlarm, ...]:
    """Alarms that persons have looked at, newest first."""
    rows: list[Any] = await connection.fetch(ACKNOWLEDGED, ACKNOWLEDGED_MAX)
    return tuple(_alarm(row) for row in rows)
