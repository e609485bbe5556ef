"""Every statement on the quarantine beside the one that fills it: what is in it, and what a person released to be read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lockstep_kit.db import Connection
from lockstep_kit.values import dataclass

#: What is in the quarantine, oldest first, with what the newest release of each came to.
SHOW: Final = """
select quarantined.id, quarantined.counterparty, quarantined.cursor, quarantined.field, quarantined.rule, quarantined.recorded_at,
    length(quarantined.octets) as octet_count, encode(sha256(quarantined.octets), 'hex') as sha256, coalesce(released.state, 'HELD') as state,
    released.released_by, released.reason, released.released_at, released.finding
from bank_quarantine as quarantined
left join lateral (
    select * from bank_quarantine_release as release where release.quarantine_id = quarantined.id order by release.id desc limit 1
) as released on true
where $2 or released.state is distinct from 'READ'
order by quarantined.id limit $1
"""

#: How many of a bank's messages are in the quarantine and were not read since.
COUNT_HELD: Final = """
select count(*) from bank_quarantine as quarantined
where counterparty = $1 and not exists (
    select from bank_quarantine_release as release where release.quarantine_id = quarantined.id and release.state = 'READ')
"""

#: The octets of one.
OCTETS: Final = "select octets from bank_quarantine where id = $1"

#: Which of some places of a mailbox are in the quarantine.
QUARANTINED_AMONG: Final = "select cursor from bank_quarantine where counterparty = $1 and cursor = any($2::bigint[])"

#: A person has one read again; nothing comes back for one that is not there, was read, or waits to be.
RELEASE: Final = """
insert into bank_quarantine_release (quarantine_id, released_by, reason)
select id, $2, $3 from bank_quarantine as quarantined
where id = $1 and not exists (
    select from bank_quarantine_release as release where release.quarantine_id = quarantined.id and release.finding is null)
on conflict do nothing returning id
"""

#: The oldest of a bank that waits to be read again, kept for this transaction alone.
NEXT_RELEASED: Final = """
select release.id, quarantined.id as quarantine_id, quarantined.octets
from bank_quarantine_release as release join bank_quarantine as quarantined on quarantined.id = release.quarantine_id
where release.state = 'WAITING' and quarantined.counterparty = $1
order by release.id limit 1 for update of release skip locked
"""

#: What came of reading it again: READ, or REFUSED with field and rule.
END_RELEASE: Final = "update bank_quarantine_release set state = $2, finding = $3, ended_at = clock_timestamp() where id = $1"


@dataclass(frozen=True, slots=True)
class Released:
    """A quarantined message that a person wants read again."""

    #: Row of the release.
    id: int
    #: Row of the message.
    quarantine_id: int
    #: The message.
    octets: bytes


async def show(connection: Connection, limit: int, *, whole: bool) -> list[dict[str, Any]]:
    """What is in the quarantine, oldest first; with what was read since, if `whole`."""
    return [dict(row) for row in await connection.fetch(SHOW, limit, whole)]


async def count_held(connection: Connection, counterparty: str) -> int:
    """How many of a bank's messages are in the quarantine and were not read since."""
    return int(await connection.fetchval(COUNT_HELD, counterparty))


async def octets(connection: Connection, number: int) -> bytes | None:
    """The octets of one, or None where there is none."""
    found: bytes | None = await connection.fetchval(OCTETS, number)
    return found


async def quarantined_among(connection: Connection, counterparty: str, places: Sequence[int]) -> frozenset[int]:
    """Those of some places of a mailbox that are in the quarantine."""
    return frozenset(row["cursor"] for row in await connection.fetch(QUARANTINED_AMONG, counterparty, list(places)))


async def release(tx: Connection, number: int, released_by: str, reason: str) -> bool:
    """Have one read again; False where it is not there, was read, or waits to be."""
    return await tx.fetchval(RELEASE, number, released_by, reason) is not None


async def next_released(tx: Connection, counterparty: str) -> Released | None:
    """The oldest that waits to be read again, for this transaction alone."""
    row = await tx.fetchrow(NEXT_RELEASED, counterparty)
    return None if row is None else Released(**dict(row))


async def end_release(tx: Connection, number: int, finding: str | None) -> None:
    """Keep what came of reading it again: nothing that speaks against it, or what does."""
    await tx.execute(END_RELEASE, number, "READ" if finding is None else "REFUSED", finding)
