"""Leases with epochs: who may write about a resource, by rows and the database's clock.

The counter of the epoch grows at each take-over, so that a holder whose lease was taken can be told from the one that took it, by the database and by
everyone whom it sends commands. Set-based: all statements take lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from lockstep_kit.db import Connection
from lockstep_kit.fence import Epoch
from lockstep_kit.moments import passed

V1_UPGRADE: Final = (
    """
    create table lease (
        resource_id text primary key,
        owner text not null,
        generation bigint not null check (generation >= 1),
        counter bigint not null check (counter >= 1),
        expires_at timestamptz not null
    )
    """,
    """
    create function lease_epoch_grows() returns trigger language plpgsql as $$
    begin
        if (new.generation, new.counter) < (old.generation, old.counter) then
            raise exception 'an epoch never goes back' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    "create trigger lease_epoch_grows before update on lease for each row execute function lease_epoch_grows()",
)


def lease_table(metadata: sa.MetaData) -> None:
    """Declare the table."""
    sa.Table(
        "lease",
        metadata,
        sa.Column("resource_id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )


#: Whether a lease holds nobody off any more. One that never ends is meant to.
FREE: Final = passed("lease.expires_at")

#: Takes leases that nobody holds, or keeps those that the owner holds; a take-over raises the counter.
ACQUIRE: Final = f"""
insert into lease (resource_id, owner, generation, counter, expires_at)
select resource_id, $2, $3, 1, clock_timestamp() + $4 from unnest($1::text[]) as resource_id order by resource_id
on conflict (resource_id) do update
set owner = excluded.owner, generation = excluded.generation, expires_at = excluded.expires_at,
    counter = case when lease.owner = excluded.owner and lease.generation = excluded.generation then lease.counter
                   when lease.generation < excluded.generation then 1 else lease.counter + 1 end
where lease.generation <= excluded.generation and (lease.owner = excluded.owner or {FREE})
returning resource_id, generation, counter
"""

#: Leases that the owner still holds; the rows stay locked until the transaction ends, so that nobody takes them meanwhile.
HOLD: Final = """
select resource_id, generation, counter from lease
where resource_id = any($1) and owner = $2 and generation = $3 and expires_at > clock_timestamp() order by resource_id for update
"""

#: What of a lease's time must be left for whoever works under it to leave it as it is. Who holds a lease for longer than that takes it anew.
LEFT: Final = 0.5

#: Whether the owner ($2, of generation $3) holds a lease that has more left than a duration ($4).
HELD: Final = "lease.owner = $2 and lease.generation = $3 and lease.expires_at > clock_timestamp() + $4::interval"

#: Gives leases back.
RELEASE: Final = """
update lease set expires_at = '-infinity'
where resource_id in (select resource_id from lease where resource_id = any($1) and owner = $2 order by resource_id for update)
"""


async def acquire(tx: Connection, resources: Sequence[str], owner: str, generation: int, duration: timedelta) -> dict[str, Epoch]:
    """Epochs of the leases that the owner holds now, for `duration`; what others hold is not there."""
    rows = await tx.fetch(ACQUIRE, sorted(set(resources)), owner, generation, duration)
    return {row["resource_id"]: Epoch(row["generation"], row["counter"]) for row in rows}


async def hold(tx: Connection, resources: Sequence[str], owner: str, generation: int) -> dict[str, Epoch]:
    """Epochs of the leases that the owner holds until this transaction ends at the least."""
    rows = await tx.fetch(HOLD, sorted(set(resources)), owner, generation)
    return {row["resource_id"]: Epoch(row["generation"], row["counter"]) for row in rows}


async def release(tx: Connection, resources: Sequence[str], owner: str) -> None:
    """Give leases back, so that others need not wait for their end."""
    await tx.execute(RELEASE, list(resources), owner)
